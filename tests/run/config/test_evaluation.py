"""Sections `[evaluations.NAME]`: what they may hold, and the full key of what they may not."""

from pathlib import Path

import pytest

from parity.run.config.evaluation import SECTIONS
from parity.run.config.run_file import Config, load
from parity.run.errors import BadConfig
from parity.run.experiment import open_run


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("first.toml")


def refusal(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadConfig) as error:
        open_run(path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("first.toml: ")
    return message.removeprefix("first.toml: ")


def test_sections_and_keys_of_an_evaluation_keep_their_toml_types(path: Path) -> None:
    path.write_text(
        '[evaluations.bnb4.encoder]\nquantize = "4bit"\n'
        "[evaluations.bnb4.scoring]\nbootstrap = 200\nseen_share = 0.5\n"
        '[evaluations."shots.2"]\nprompt = { examples = "fixed", example_count = 2 }\n'
        "[evaluations.same]\n"
    )
    evaluations = open_run(path).config.evaluations
    assert {name: evaluation.root for name, evaluation in evaluations.items()} == {
        "bnb4": {
            "encoder": {"quantize": "4bit"},
            "scoring": {"bootstrap": 200, "seen_share": 0.5},
        },
        "shots.2": {"prompt": {"examples": "fixed", "example_count": 2}},
        "same": {},
    }


def test_the_sections_are_those_of_a_run_file(path: Path) -> None:
    assert set(SECTIONS) < set(Config.model_fields)
    for section in SECTIONS:
        path.write_text(f"[evaluations.same.{section}]\n")
        assert open_run(path).config.evaluations["same"].root == {section: {}}


@pytest.mark.parametrize(
    "section", sorted(set(Config.model_fields) - {*SECTIONS, "name", "overrides", "evaluations"})
)
def test_a_section_that_decides_how_a_model_is_made_is_refused(path: Path, section: str) -> None:
    assert refusal(path, f"[evaluations.bnb4.{section}]\n") == (
        f"evaluations.bnb4.{section}: an evaluation changes competition, split, prompt, encoder, "
        "scoring; other sections decide how a model is made"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[evaluations.bnb4.encoder]\nquantized = "4bit"\n', "bnb4.encoder.quantized: unknown key"),
        (
            '[evaluations.bnb4.encoder]\nquantize = "5bit"\n',
            "bnb4.encoder.quantize: Input should be 'none', '4bit' or 'fp8'",
        ),
        (
            '[evaluations.half.scoring]\nseen_share = "0.5"\n',
            "half.scoring.seen_share: Input should be a valid number",
        ),
        (
            "[evaluations.half.scoring]\nseen_share = 2.0\n",
            "half.scoring.seen_share: Input should be less than or equal to 1",
        ),
        (
            "[evaluations.half.scoring]\nseen_share = nan\n",
            "half.scoring.seen_share: Out of range float values are not JSON",
        ),
        (
            "[evaluations.other.split]\nseed = 2024-11-12\n",
            "other.split.seed: Object of type date is not JSON",
        ),
        ("[evaluations.other.split]\nfolds = 1\n", "other.split: fold 0 of 1 does not exist"),
        (
            '[evaluations.shots.prompt]\nexamples = "fixed"\n',
            "shots.prompt: examples = 'fixed' needs prompt.example_count, 1 or more",
        ),
        (
            "[evaluations.shots.competition]\nk = 5\n",
            "shots.competition: k is for kind 'table', not for 'eedi'",
        ),
        ("[evaluations.bnb4.encoders]\n", "bnb4.encoders: an evaluation changes competition, "),
        ("[evaluations.bnb4]\nencoder = 3\n", "bnb4.encoder: Input should be an object"),
        ('[evaluations]\nbnb4 = "4bit"\n', "bnb4: Input should be an object"),
    ],
)
def test_a_wrong_key_or_value_is_refused_by_its_full_key(
    path: Path, text: str, message: str
) -> None:
    assert refusal(path, text).startswith(f"evaluations.{message}")


@pytest.mark.parametrize("name", ["4bit", "a/b", "a@b", "", ".", "..", "-a", "a b", "a\\nb"])
def test_a_name_that_does_not_fit_a_label_is_refused(path: Path, name: str) -> None:
    message = refusal(path, f'[evaluations."{name}".scoring]\nbootstrap = 200\n')
    problem = "a name has letters, digits, '.', '_' and '-', a letter first"
    assert message == f'evaluations."{name}": {problem}'


def test_all_evaluations_are_checked_when_the_file_is_opened(path: Path) -> None:
    text = "[evaluations.a.scoring]\nbootstrap = 200\n[evaluations.b.scoring]\nbootstraps = 200\n"
    assert refusal(path, text) == "evaluations.b.scoring.bootstraps: unknown key"


def test_an_evaluation_does_not_change_the_run(path: Path) -> None:
    path.write_text("[evaluations.half.scoring]\nseen_share = 0.5\n")
    config = load(path)
    assert config.scoring == Config(name="first").scoring
    assert config.digest() == Config(name="first").digest()
