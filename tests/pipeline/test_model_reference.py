"""References to models: what each form of the syntax finds, and what an error lists."""

import shutil
from pathlib import Path

import pytest
from pipeline.run_fixture import RunFixture

from parity.pipeline import dag, model_reference
from parity.pipeline.dag import StageGraph
from parity.pipeline.model_reference import Model, find, is_reference, models_of, own_round, resolve
from parity.run import files
from parity.run.errors import BadConfig, BadData, StaleInput
from parity.run.experiment import Run

AVAILABLE = "models: base, best, epoch-1, epoch-2"
WEIGHTS = "adapter_model.safetensors"


def copied_adapter(fixture: RunFixture, name: str, *, of: str = "best") -> Path:
    """Copy an adapter of the run to a folder, and return the folder relative to the fixture's."""
    source = resolve(of, fixture.open()).folder
    assert source is not None
    shutil.copytree(source, fixture.folder / name)
    return Path(name)


def add_run(fixture: RunFixture, name: str) -> None:
    """Add another run with the same work to the data folder."""
    runs = fixture.data / "runs"
    shutil.copytree(runs / "small", runs / name)
    fixture.write_config(name)


def append_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def refused(text: str, run: Run) -> str:
    """Return the error of a reference, which has one line."""
    with pytest.raises((BadConfig, StaleInput)) as error:
        resolve(text, run)
    assert "\n" not in str(error.value)
    return str(error.value)


# What each form finds


@pytest.mark.parametrize(
    ("text", "reference", "label", "folder"),
    [
        ("best", "round-0/best", "best", "adapter"),
        ("last", "round-0/epoch-2", "epoch-2", "epoch-2"),
        ("epoch-1", "round-0/epoch-1", "epoch-1", "epoch-1"),
        ("round-0/best", "round-0/best", "best", "adapter"),
        ("round-0/last", "round-0/epoch-2", "epoch-2", "epoch-2"),
        ("small/round-0/epoch-1", "round-0/epoch-1", "epoch-1", "epoch-1"),
    ],
)
@pytest.mark.parametrize("round_", [0, 1])
def test_a_reference_finds_an_adapter_of_the_run(
    predicted_run: RunFixture, text: str, reference: str, label: str, folder: str, round_: int
) -> None:
    run = predicted_run.open(round_=round_)
    if round_ and "/" not in text:  # without a round, the run's round is meant
        assert refused(text, run).startswith("train of round 1 is missing, so small has no ")
        return
    model = resolve(text, run)
    assert (model.reference, model.label, model.round) == (reference, label, 0)
    assert model.folder == run.workspace.stage("train", 0) / folder
    assert model.trained == "train of round 0"
    assert resolve(model.reference, run) == model  # a canonical reference needs no round
    assert is_reference(text)


def test_the_base_model_has_no_folder_and_belongs_to_the_first_round(
    small_run: RunFixture,
) -> None:
    assert resolve("base", small_run.open(round_=2)) == Model("base", "base", 0)


def test_last_is_the_epoch_with_the_highest_number(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    train = run.workspace.stage("train", 0)
    shutil.copytree(train / "epoch-2", train / "epoch-10")
    assert resolve("last", run).reference == "round-0/epoch-10"
    assert model_reference.epochs_of(run.workspace, 0) == [1, 2, 10]


def test_best_has_the_digest_of_its_epoch_and_other_epochs_have_another(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    digests = {name: resolve(name, run).digest for name in ("best", "epoch-1", "epoch-2")}
    manifest = StageGraph().standing(run, "train").manifest
    assert manifest is not None
    assert digests["best"] == digests[f"epoch-{manifest.facts['best_epoch']}"]
    assert len(set(digests.values())) == 2


@pytest.mark.parametrize(
    ("name", "identifies"),
    [
        ("adapter.json", True),
        ("adapter_config.json", True),
        (WEIGHTS, True),
        ("lineage.json", True),
        ("run.json", False),
        ("notes.txt", False),
    ],
)
def test_the_digest_is_of_weights_settings_and_lineage(
    predicted_run: RunFixture, name: str, identifies: bool
) -> None:
    run = predicted_run.open()
    folder = copied_adapter(predicted_run, "copy")
    before = resolve("copy", run).digest
    assert before == resolve("best", run).digest
    (folder / name).touch()
    append_byte(folder / name)
    assert (resolve("copy", run).digest != before) == identifies


@pytest.mark.parametrize("name", ["best", "last", "epoch-1"])
def test_a_reference_finds_an_adapter_of_another_run(predicted_run: RunFixture, name: str) -> None:
    add_run(predicted_run, "other")
    run = predicted_run.open(round_=1)
    model = resolve(f"other/round-0/{name}", run)
    canonical = f"other/round-0/{'epoch-2' if name == 'last' else name}"
    # Its evaluations belong to the first round, under a label that no adapter of the run has.
    assert (model.reference, model.label, model.round) == (canonical, canonical, 0)
    assert model.digest == resolve(f"round-0/{name}", run).digest
    assert model.trained == ""
    assert model.folder is not None
    assert predicted_run.data / "runs" / "other" in model.folder.absolute().parents
    assert resolve(model.reference, run) == model
    scored = dag.evaluation_folder(run, model)
    assert scored == run.workspace.root / "round-0" / "eval" / canonical


def test_a_reference_finds_an_adapter_in_a_folder(predicted_run: RunFixture) -> None:
    folder = copied_adapter(predicted_run, "copies/mine")
    run = predicted_run.open(round_=1)
    for text in ("copies/mine", "./copies/mine", str(folder.absolute())):
        model = resolve(text, run)
        assert model.folder == Path(text)
        assert model.label == f"mine-{model.digest[:8]}"
        assert (model.round, model.trained) == (0, "")
        assert resolve(model.reference, run) == model
        assert not is_reference(text)


def test_two_folders_of_one_name_have_different_labels(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    copied_adapter(predicted_run, "a/adapter")
    copied_adapter(predicted_run, "b/adapter", of="epoch-1")
    copied_adapter(predicted_run, "c/adapter")
    first, second, third = (resolve(f"{name}/adapter", run).label for name in "abc")
    assert first != second
    assert first == third  # the same adapter


def test_a_folder_that_is_named_as_a_reference_needs_a_path(predicted_run: RunFixture) -> None:
    copied_adapter(predicted_run, "best", of="epoch-1")
    run = predicted_run.open()
    assert resolve("best", run).label == "best"
    assert resolve("./best", run).label.startswith("best-")


# What is refused


@pytest.mark.parametrize(
    "text", ["better", "epoch-0", "epoch-x", "round-1", "round-x/best", "a/b/round-0/best", "BEST"]
)
def test_an_unknown_model_is_refused_with_the_syntax_and_the_models(
    predicted_run: RunFixture, text: str
) -> None:
    assert not is_reference(text)
    assert refused(text, predicted_run.open()) == (
        f"{text} is not a model or a folder. Use base, best, last, epoch-N, "
        f"round-R/epoch-N, RUN/round-R/epoch-N or a folder with an adapter ({AVAILABLE})"
    )


def test_an_epoch_that_was_not_trained_is_refused_with_the_models(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    expected = f"small has no epoch-3 of round 0 ({AVAILABLE})"
    for text in ("epoch-3", "round-0/epoch-3", "small/round-0/epoch-3"):
        assert refused(text, run) == expected
    add_run(predicted_run, "other")
    assert refused("other/round-0/epoch-3", run) == f"other has no epoch-3 of round 0 ({AVAILABLE})"


def test_the_models_of_other_rounds_are_listed_with_their_round(predicted_run: RunFixture) -> None:
    run = predicted_run.open(round_=1)
    listed = "base, round-0/best, round-0/epoch-1, round-0/epoch-2"
    assert refused("better", run).endswith(f"(models: {listed})")


def test_another_run_that_is_missing_is_refused_with_the_runs(predicted_run: RunFixture) -> None:
    message = refused("absent/round-0/best", predicted_run.open())
    assert message == f"no run 'absent' in {predicted_run.data / 'runs'} (it has: small)"


def test_a_folder_without_an_adapter_is_refused(predicted_run: RunFixture) -> None:
    (predicted_run.folder / "empty").mkdir()
    message = refused("empty", predicted_run.open())
    assert message.startswith("empty has no adapter.json. Use base, best, last, epoch-N, ")
    assert message.endswith(f"({AVAILABLE})")


def test_a_folder_whose_record_is_damaged_is_refused(predicted_run: RunFixture) -> None:
    folder = copied_adapter(predicted_run, "damaged")
    (folder / "adapter.json").write_text("{")
    with pytest.raises(BadData, match=r"^damaged/adapter\.json: not JSON \([^\n]*line 1\)$"):
        resolve("damaged", predicted_run.open())


@pytest.mark.parametrize("name", ["best", "last", "epoch-1"])
def test_a_training_that_has_not_finished_is_refused_with_its_command(
    predicted_run: RunFixture, name: str
) -> None:
    run = predicted_run.open()
    (run.workspace.stage("train", 0) / "manifest.json").unlink()
    with pytest.raises(StaleInput) as error:
        resolve(name, run)
    assert str(error.value) == (
        f"train of round 0 is missing, so small has no {name} there (models: base)"
    )
    assert error.value.fix == ("train", "--run", "small.toml")


def test_a_training_of_another_run_that_has_not_finished_is_refused_with_its_command(
    predicted_run: RunFixture,
) -> None:
    add_run(predicted_run, "other")
    run = predicted_run.open("mining.seed=1")
    (predicted_run.data / "runs/other/round-0/train/manifest.json").unlink()
    with pytest.raises(StaleInput) as error:
        resolve("other/round-0/best", run)
    assert str(error.value).startswith("train of round 0 is missing, so other has no best there ")
    assert error.value.fix == ("train", "--run", "other.toml")


@pytest.mark.parametrize("is_lost", [True, False])
def test_an_adapter_with_a_changed_file_is_refused_and_others_are_not(
    predicted_run: RunFixture, is_lost: bool
) -> None:
    run = predicted_run.open()
    path = run.workspace.epoch(0, 1) / WEIGHTS
    if is_lost:
        path.unlink()
    else:
        append_byte(path)
    with pytest.raises(StaleInput) as error:
        resolve("epoch-1", run)
    problem = f"epoch-1/{WEIGHTS} is missing or was changed"
    assert str(error.value) == f"train of round 0 is stale ({problem})"
    assert error.value.fix == ("train", "--run", "small.toml")
    assert find("epoch-1", run) is None
    assert find("epoch-2", run) is not None
    assert resolve("best", run).label == "best"


def test_removed_epochs_are_refused_and_the_best_adapter_is_not(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    for number in (1, 2):
        files.remove(run.workspace.epoch(0, number))
    assert resolve("best", run).label == "best"
    for name in ("last", "epoch-2"):
        message = f"small has no {name} of round 0 (models: base, best)"
        assert refused(name, run) == message


@pytest.mark.parametrize("stage", ["mine", "train"])
@pytest.mark.parametrize("text", ["best", "epoch-1", "round-1/last", "small/round-2/best"])
def test_no_adapter_is_made_from_itself_or_a_later_one(
    predicted_run: RunFixture, stage: str, text: str
) -> None:
    run = predicted_run.open(round_=1)
    with pytest.raises(BadConfig, match=rf"^round 1 can't use {text}, which round \d trains\. "):
        StageGraph().model(run, stage, text)
    for earlier in ("base", "round-0/best", "small/round-0/epoch-1"):
        assert StageGraph().model(run, stage, earlier) == resolve(earlier, run)


# Models of a run


@pytest.mark.parametrize(
    ("text", "round_"),
    [
        ("best", 3),
        ("epoch-1", 3),
        ("round-0/last", 0),
        ("small/round-2/best", 2),
        ("other/round-2/best", None),
        ("base", None),
        ("a/folder", None),
    ],
)
def test_the_round_of_an_own_adapter_is_known_before_it_exists(
    small_run: RunFixture, text: str, round_: int | None
) -> None:
    assert own_round(text, small_run.open(round_=3)) == round_


def test_the_models_of_a_run_are_its_base_and_the_adapters_of_finished_rounds(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    first = ["base", "round-0/epoch-1", "round-0/epoch-2", "round-0/best"]
    assert [model.reference for model in models_of(run)] == first
    rounds = predicted_run.data / "runs" / "small"
    shutil.copytree(rounds / "round-0" / "train", rounds / "round-1" / "train")
    second = [name.replace("round-0", "round-1") for name in first[1:]]
    for round_ in (0, 1):
        models = list(models_of(run.at(round_)))
        assert [model.reference for model in models] == [*first, *second]
        assert [model.round for model in models] == [0] * 4 + [1] * 3
    (rounds / "round-1" / "train" / "manifest.json").unlink()
    append_byte(rounds / "round-0" / "train" / "epoch-1" / WEIGHTS)
    assert [model.reference for model in models_of(run)] == [first[0], *first[2:]]


def test_a_run_without_a_training_has_the_base_model_alone(small_run: RunFixture) -> None:
    assert [model.reference for model in models_of(small_run.open())] == ["base"]
