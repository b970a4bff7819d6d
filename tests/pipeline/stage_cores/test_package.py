"""The bundle: of a model that was scored, with the settings and layers of that evaluation."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture

from parity.cli import main
from parity.deploy.bundle import bundle
from parity.deploy.bundle.bundle import Bundle
from parity.pipeline import dag, evaluation, evaluations
from parity.pipeline.stage_cores.package import package
from parity.run import files, ledger
from parity.run import manifest as manifests
from parity.run.errors import BadData, StaleInput
from parity.run.experiment import Run
from parity.run.layers import PINNED

WRONG = {"query": "{wrong}"}
SECTIONS: dict[str, Any] = {"shipping": {"wheels": []}, "evaluations.wrong.prompt": WRONG}


@pytest.fixture
def scored(predicted_run: RunFixture) -> RunFixture:
    """Return the predicted run, which needs no wheels, with an evaluation in its run file."""
    predicted_run.write_config(**SECTIONS)
    return predicted_run


def shipped(run: Run) -> Bundle:
    return bundle.read(dag.folder(run, "package") / "bundle")


def evaluated(run: Run, label: str) -> dict[str, Any]:
    """Return the facts of an evaluation of round 0."""
    manifest = manifests.read(run.workspace.evaluation(0, label))
    assert manifest is not None
    return manifest.facts


def fixed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that fails, then the command that its error prints, then the first again."""
    capsys.readouterr()
    assert main(words) == 4
    (command,) = re.findall(r"Run: `python -m parity (.*)`$", capsys.readouterr().err, re.MULTILINE)
    assert main(shlex.split(command)) == 0
    assert main(words) == 0
    return str(command)


@pytest.mark.parametrize(
    ("flags", "command", "label"),
    [
        ("--model epoch-1", "eval --run small.toml --model round-0/epoch-1", "epoch-1"),
        ("--model base", "eval --run small.toml --model base", "base"),
        ("--as wrong", "eval --run small.toml --as wrong", "best@wrong"),
        (
            "--model last --as wrong --set shipping.hours=1",
            "eval --run small.toml --set=shipping.hours=1 --model round-0/epoch-2 --as wrong",
            "epoch-2@wrong",
        ),
    ],
)
def test_a_model_is_packaged_after_the_command_that_scores_it(
    scored: RunFixture, capsys: pytest.CaptureFixture[str], flags: str, command: str, label: str
) -> None:
    assert fixed(["package", "small.toml", *flags.split()], capsys) == command
    assert f" of {label}, " in capsys.readouterr().out
    result = shipped(scored.open())
    assert result.facts["model"] == label
    scores = evaluations.read(scored.open().workspace.evaluation(0, label))
    assert result.facts["cv"] == {name: value.as_json() for name, value in scores.items()}
    assert label in scores
    assert dag.StageGraph().standing(scored.open(), "package").state == "done"


def test_settings_that_only_set_gives_are_scored_first(
    scored: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    override = "prompt.query={question} it's {wrong}"
    command = fixed(["package", "small.toml", "--set", override], capsys)
    assert shlex.split(command) == ["eval", "--run", "small.toml", f"--set={override}"]
    assert shipped(scored.open()).config.prompt.query == "{question} it's {wrong}"


def test_a_bundle_has_settings_and_layers_of_its_evaluation(scored: RunFixture) -> None:
    run = scored.open()
    for words in (["eval"], ["package"]):
        assert main([*words, "small.toml", "--model", "epoch-1", "--as", "wrong"]) == 0
    result = shipped(run)
    assert result.config.prompt.query == "{wrong}"
    assert result.config.training == run.config.training
    assert result.config.evaluations == {}
    layers = evaluated(run, "epoch-1@wrong")["layers"]
    assert {name: result.layers[name] for name in layers} == layers
    assert set(PINNED) <= set(result.layers)
    weights = "adapter_model.safetensors"
    trained = run.workspace.epoch(0, 1) / weights
    assert (result.folder / weights).read_bytes() == trained.read_bytes()
    texts = files.read_jsonl(run.workspace.texts(0, "epoch-1@wrong"))
    assert len(files.read_jsonl(result.folder / "probe.jsonl")) == len(texts)


def test_a_bundle_of_the_base_model_has_no_adapter(scored: RunFixture) -> None:
    for words in (["eval"], ["package"]):
        assert main([*words, "small.toml", "--model", "base"]) == 0
    result = shipped(scored.open())
    assert {path.name for path in result.folder.iterdir()} == {
        *("README.md", "base.json", "examples.jsonl", "lineage.json", "manifest.json"),
        *("probe.jsonl", "run.json"),
    }
    assert result.layers["adapter"] == ""
    assert files.read_json(result.folder / "lineage.json") == {"trained_on": []}
    assert "Adapter: none, this is the base model" in (result.folder / "README.md").read_text()


def test_a_bundle_is_stale_after_its_evaluation_has_changed(scored: RunFixture) -> None:
    package(scored.open())

    def reason() -> str:
        return dag.StageGraph().standing(scored.open(), "package").reason

    assert reason() == ""
    scored.write_config(**SECTIONS, scoring={"seen_share": 0.5})
    assert reason() == "the evaluation of best is stale"
    assert main(["eval", "small.toml"]) == 0
    assert reason() == "the evaluation of best has changed since"
    package(scored.open())
    scored.write_config(**{**SECTIONS, "evaluations.wrong.prompt": {"query": "{question} {wrong}"}})
    assert reason() == "the evaluation of best is stale"  # seen_share is the first one again


def test_layers_without_a_validation_set_are_those_of_training(
    small_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_run.write_config(split={"kind": "full"}, **SECTIONS)
    run = small_run.run_stages("prepare", "mine", "train")
    trained = {n: files.read_json(dag.folder(run, "train") / f"epoch-{n}.json") for n in (1, 2)}
    with monkeypatch.context() as patch:
        patch.delattr(evaluation, "score")
        for model, number in (("", 2), ("epoch-1", 1)):
            package(run, model)
            layers = trained[number]["layers"]
            assert {name: shipped(run).layers[name] for name in layers} == layers
            assert shipped(run).facts["cv"] == {}
    assert "the validation set is empty" in (shipped(run).folder / "README.md").read_text()


@pytest.mark.parametrize(("model", "name"), [("", "wrong"), ("base", ""), ("FOLDER", "wrong")])
def test_layers_without_a_validation_set_are_measured_where_training_has_not(
    small_run: RunFixture, model: str, name: str
) -> None:
    """They are those of a run with a validation set, up to what it says about its rows."""
    small_run.write_config(split={"kind": "full"}, **SECTIONS)
    run = small_run.run_stages("prepare", "mine", "train")
    if model == "FOLDER":
        shutil.copytree(run.workspace.epoch(0, 1), "downloaded")
        model = "downloaded"
    package(run, model, name)
    measured, config = shipped(run).layers, shipped(run).config
    assert config.prompt.query == ("{wrong}" if name else run.config.prompt.query)
    reference = model or "small/round-0/best"
    small_run.write_config("scored", **SECTIONS)
    assert main(["prepare", "scored.toml"]) == 0
    flags = ["--model", reference, *(["--as", name] if name else []), "--accept-contaminated"]
    assert main(["eval", "scored.toml", *flags]) == 0
    (path,) = small_run.open(name="scored").workspace.root.glob("round-0/eval/**/manifest.json")
    layers = {**files.read_json(path)["facts"]["layers"], "split": measured["split"]}
    assert {key: measured[key] for key in layers} == layers


def test_only_the_files_of_an_adapter_are_taken_from_a_folder(scored: RunFixture) -> None:
    run = scored.open()
    downloaded = Path(shutil.copytree(run.workspace.epoch(0, 1), "downloaded"))
    (downloaded / "notes.txt").write_text("mine\n")
    (downloaded / "checkpoint-8").mkdir()
    for stage in ("eval", "package"):
        assert main([stage, "small.toml", "--model", "downloaded"]) == 0
    names = {path.name for path in shipped(run).folder.iterdir()}
    assert main(["package", "small.toml"]) == 0
    assert {path.name for path in shipped(run).folder.iterdir()} == names
    assert "adapter_model.safetensors" in names


@pytest.fixture
def other_adapter(scored: RunFixture) -> str:
    """Train a run on another split, and return the reference of its adapter."""
    scored.write_config("other", split={"seed": 1}, training={"epochs": 1})
    scored.run_stages("prepare", "mine", "train", name="other")
    return "other/round-0/best"


def test_a_model_scored_on_clean_rows_is_shipped_with_the_layers_of_its_score(
    scored: RunFixture, other_adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "ENOUGH", 5)
    for stage in ("eval", "package"):
        assert main([stage, "small.toml", "--model", other_adapter]) == 0
    record = ledger.read(scored.open().workspace.ledger)[-1]
    first = ledger.read(scored.open().workspace.ledger)[0]
    assert record.label == other_adapter
    assert record.layers["split"] != first.layers["split"]
    layers = shipped(scored.open()).layers
    assert {name: layers.get(name, "") for name in record.layers} == record.layers


def test_a_contaminated_score_is_not_shipped(scored: RunFixture, other_adapter: str) -> None:
    model = ["small.toml", "--model", other_adapter]
    assert main(["eval", *model]) == 5
    assert main(["eval", *model, "--accept-contaminated"]) == 0
    assert main(["package", *model]) == 0
    assert shipped(scored.open()).facts["cv"] == {}
    assert "was trained on its rows" in (shipped(scored.open()).folder / "README.md").read_text()


@pytest.mark.parametrize(("model", "label"), [("round-0/epoch-1", "epoch-1"), ("base", "base")])
def test_a_model_of_another_round_is_compared_with_its_own_score(
    scored: RunFixture, model: str, label: str
) -> None:
    run = scored.open(round_=1)
    for stage in ("eval", "package"):
        assert main([stage, "small.toml", "--round", "1", "--model", model]) == 0
    record = dag.StageGraph().compared(run)["cv"]
    assert (record.round, record.label) == (0, label)
    assert dag.StageGraph().compared(run.at(0))["cv"].label == "best"


def test_a_refused_bundle_leaves_the_earlier_one(
    scored: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = scored.open()
    package(run)
    before = run_fixture.contents(dag.folder(run, "package"))
    with pytest.raises(StaleInput, match=r"^the score of epoch-1 is missing; what is packaged"):
        package(run, "epoch-1")
    module = "parity.pipeline.stage_cores.package"
    secret = "a1" * 16
    monkeypatch.setattr(f"{module}._card", lambda *_: f'{{"key": "{secret}"}}\n')
    with pytest.raises(BadData, match="possible key or token"):
        package(run)
    assert run_fixture.contents(dag.folder(run, "package")) == before
    assert dag.StageGraph().standing(run, "package").state == "done"
