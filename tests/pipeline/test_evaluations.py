"""Which models were scored under which settings, which scores count, and which are missing."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture

from parity.competition.lineage import Lineage
from parity.pipeline import changes, dag, dataset, evaluation, evaluations
from parity.pipeline.dag import StageGraph
from parity.pipeline.evaluations import ScoredModel
from parity.pipeline.model_reference import Model
from parity.pipeline.stage_cores import evaluate
from parity.run import files, ledger
from parity.run import manifest as manifests
from parity.run.errors import Contaminated, StaleInput
from parity.run.experiment import Run
from parity.run.manifest import Manifest

HALF = {"evaluations.half.scoring": {"seen_share": 0.5}}
CUT = {"evaluations.cut.prompt": {"query_max_length": 64}}
QUICK = "prompt.query_max_length=48"


def model_of(run: Run, reference: str) -> Model:
    model = StageGraph().model(run, "eval", reference)
    assert model is not None
    return model


def scored(run: Run) -> list[ScoredModel]:
    return list(evaluations.scored_models(run, StageGraph()))


def names(run: Run) -> list[str]:
    return [item.name for item in scored(run)]


def missing(run: Run) -> list[str]:
    pairs = evaluations.missing(run, StageGraph())
    return [dag.evaluation_label(model, at_round) for at_round, model in pairs]


def contaminate(run: Run, folder: str) -> None:
    """Add a unit of the validation set to the lineage of an adapter."""
    split = dataset.load(run.config, run.workspace).split
    trained = dag.folder(run, "train")
    Lineage(frozenset({*split.train, split.valid[0]})).write(trained / folder / "lineage.json")
    run_fixture.seal(trained)


def copy_run(run: Run, name: str) -> Path:
    """Copy a run's folder and run file."""
    shutil.copy(run.file, f"{name}.toml")
    return Path(shutil.copytree(run.workspace.root, run.workspace.root.with_name(name)))


# Scores of one evaluation


def test_scores_of_an_evaluation_end_with_its_model(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    folder = dag.folder(run, "eval")
    assert list(evaluations.read(folder)) == ["bm25", "tfidf", "best"]
    (folder / "manifest.json").unlink()
    assert evaluations.read(folder) == {}  # not finished
    assert evaluations.read(folder.with_name("epoch-1")) == {}


def test_the_cv_of_a_model_is_its_newest_clean_record(predicted_run: RunFixture) -> None:
    predicted_run.write_config(**HALF)
    run = predicted_run.open()
    evaluate.evaluate(run, evaluation="half")
    path = run.workspace.ledger
    first, half = ledger.read(path)
    best = model_of(run, "best")
    assert evaluations.find_cv(run, best) == first
    assert evaluations.find_cv(run.evaluated_as("half"), best) == half
    newest = replace(first, made="2100-01-01T00:00:00Z")
    ledger.append(path, newest)
    ledger.append(path, replace(newest, status="contaminated"))
    ledger.append(path, replace(newest, kind="rehearsal"))
    ledger.append(path, replace(newest, run="other"))
    ledger.append(path, replace(newest, round=1))
    assert evaluations.find_cv(run, best) == newest
    path.unlink()
    with pytest.raises(StaleInput, match=r"^no CV of best in .*ledger\.jsonl$"):
        evaluations.find_cv(run, best)


@pytest.mark.parametrize(
    ("reference", "name", "label", "flags"),
    [
        ("best", "half", "best@half", ("--as", "half")),
        ("base", "", "base", ("--model", "base")),
        ("epoch-1", "", "epoch-1", ("--model", "round-0/epoch-1")),
        ("epoch-1", "half", "epoch-1@half", ("--model", "round-0/epoch-1", "--as", "half")),
    ],
)
def test_a_missing_cv_is_refused_with_the_command_that_makes_it(
    predicted_run: RunFixture, reference: str, name: str, label: str, flags: tuple[str, ...]
) -> None:
    predicted_run.write_config(**HALF)
    run = predicted_run.open().evaluated_as(name)
    with pytest.raises(StaleInput, match=rf"^the CV of {label} of round 0 is missing$") as error:
        evaluations.find_cv(run, model_of(run, reference))
    assert error.value.fix == ("eval", "--run", "small.toml", *flags)


def test_a_stale_cv_is_refused_with_its_reason(predicted_run: RunFixture) -> None:
    predicted_run.write_config(scoring={"seen_share": 0.5})
    run = predicted_run.open()
    with pytest.raises(StaleInput, match=r"^the CV of best is stale \(scoring\.seen_share was "):
        evaluations.find_cv(run, model_of(run, "best"))


def test_a_contaminated_cv_is_refused(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    contaminate(run, "epoch-1")
    evaluate.evaluate(run, "epoch-1", accept_contaminated=True)
    with pytest.raises(Contaminated, match=r"^the CV of epoch-1 is contaminated") as error:
        evaluations.find_cv(run, model_of(run, "epoch-1"))
    assert error.value.fix == ("train", "--run", "small.toml")


# What is missing


def test_the_best_adapter_stands_for_its_epoch(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    assert model_of(run, "epoch-2").digest == model_of(run, "best").digest
    assert missing(run) == ["base", "epoch-1"]


def test_every_model_is_missing_under_every_new_evaluation(predicted_run: RunFixture) -> None:
    predicted_run.write_config(**HALF, **CUT)
    run = predicted_run.open()
    expected = ["base", "epoch-1", *(f"{m}@cut" for m in ("base", "epoch-1", "best"))]
    expected += [f"{m}@half" for m in ("base", "epoch-1", "best")]
    assert missing(run) == expected
    evaluate.evaluate(run, "base", evaluation="cut")
    evaluate.evaluate(run, "base")
    evaluate.evaluate(run, "epoch-1", evaluation="half")
    done = {"base", "base@cut", "epoch-1@half"}
    assert missing(run) == [label for label in expected if label not in done]


def test_chosen_settings_are_missing_alone(predicted_run: RunFixture) -> None:
    predicted_run.write_config(**HALF)
    run = predicted_run.open()
    assert missing(run.evaluated_as("half")) == ["base@half", "epoch-1@half", "best@half"]
    quick = predicted_run.open(QUICK)
    assert missing(quick) == [f"{m}@{quick.evaluation}" for m in ("base", "epoch-1", "best")]
    assert missing(predicted_run.open("encoder.device=auto")) == missing(run)


def test_a_stale_score_is_missing(predicted_run: RunFixture) -> None:
    predicted_run.write_config(scoring={"seen_share": 0.5})
    assert missing(predicted_run.open()) == ["base", "epoch-1", "best"]


# Scored models


def test_scores_are_listed_by_settings_and_then_by_model(predicted_run: RunFixture) -> None:
    predicted_run.write_config(**HALF, **CUT)
    run = predicted_run.open()
    quick = predicted_run.open(QUICK)
    evaluate.evaluate(quick)
    evaluate.evaluate(run, "base", evaluation="half")
    evaluate.evaluate(run, "best", evaluation="cut")
    evaluate.evaluate(run, "base")
    expected = ["base", "best", "best@cut", "base@half", f"best@{quick.evaluation}"]
    assert names(run) == expected
    assert names(quick) == names(run.evaluated_as("half")) == expected
    (base,) = (item for item in scored(run) if item.label == "base")
    folder = run.workspace.evaluation(0, "base")
    assert base.folder == folder
    assert base.scores == evaluations.read(folder)["base"]
    assert list(base.lexical) == ["bm25", "tfidf"]
    assert base.unseen == dataset.load(run.config, run.workspace).split.unseen
    assert base.scores.projection is not None
    assert base.value == base.scores.projection.value
    settings = {item.name: item.run.config.prompt.query_max_length for item in scored(run)}
    assert settings["best"] == 96
    assert settings["best@cut"] == 64
    assert settings[f"best@{quick.evaluation}"] == 48


def test_an_override_with_the_value_of_the_run_file_is_not_another_choice(
    predicted_run: RunFixture,
) -> None:
    predicted_run.write_config(**HALF)
    unchanged = predicted_run.open("prompt.query_max_length=96")
    evaluate.evaluate(unchanged)
    evaluate.evaluate(predicted_run.open(), evaluation="half")
    assert names(unchanged) == names(predicted_run.open()) == ["best", "best@half"]
    assert missing(unchanged) == missing(predicted_run.open())


def test_a_quick_look_counts_while_its_overrides_give_the_same_settings(
    predicted_run: RunFixture,
) -> None:
    evaluate.evaluate(predicted_run.open(QUICK))
    assert len(names(predicted_run.open())) == 2
    predicted_run.write_config(training={"learning_rate": 0.5})
    assert len(names(predicted_run.open())) == 2  # scoring does not depend on it
    predicted_run.write_config(scoring={"seen_share": 0.5})
    assert names(predicted_run.open()) == []


def test_an_evaluation_that_the_run_file_has_no_more_does_not_count(
    predicted_run: RunFixture,
) -> None:
    predicted_run.write_config(**HALF)
    evaluate.evaluate(predicted_run.open(), evaluation="half")
    assert names(predicted_run.open()) == ["best", "best@half"]
    predicted_run.write_config(**{"evaluations.half.scoring": {"seen_share": 0.6}})
    assert names(predicted_run.open()) == ["best"]  # its settings have changed
    predicted_run.write_config()
    assert names(predicted_run.open()) == ["best"]


def test_contaminated_scores_are_not_listed(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    contaminate(run, "epoch-1")
    evaluate.evaluate(run, "epoch-1", accept_contaminated=True)
    assert names(run) == ["best"]


def test_names_have_the_round_where_there_are_several(predicted_run: RunFixture) -> None:
    run = predicted_run.run_stages("mine", round_=1)
    assert names(run) == ["round-0/best"]
    evaluate.evaluate(run, "base")
    assert names(run) == ["base", "round-0/best"]


def test_models_of_other_runs_and_folders_are_listed_once_scored(
    predicted_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "ENOUGH", 5)
    run = predicted_run.open()
    adapter = shutil.copytree(run.workspace.adapter(0), "elsewhere")
    copy_run(run, "other")
    assert names(run) == ["best"]
    evaluate.evaluate(run, str(adapter))
    evaluate.evaluate(run, "other/round-0/epoch-1")
    label = model_of(run, str(adapter)).label
    assert names(run) == ["best", label, "other/round-0/epoch-1"]
    files.remove(Path(adapter))
    assert names(run) == ["best", "other/round-0/epoch-1"]


# Sources of a bundle


def packed(run: Run, *, scored_as: str = "") -> Manifest:
    folder = run.workspace.evaluation(0, f"best{scored_as}")
    evaluated = manifests.read(folder)
    assert evaluated is not None
    inputs = {**changes.locks(run), "evaluation": evaluated.digest()}
    return Manifest("package", {}, inputs, {}, facts={"model": "round-0/best"})


def changed(run: Run, manifest: Manifest) -> str:
    return evaluations.changed_bundle_sources(StageGraph(), run, manifest)


def test_a_bundle_depends_on_locks_and_on_the_score_of_its_model(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    manifest = packed(run)
    assert changed(run, manifest) == ""
    inputs = {**manifest.inputs, "image.lock": "0"}
    assert changed(run, replace(manifest, inputs=inputs)) == "image.lock has changed since"
    inputs = {**manifest.inputs, "evaluation": "0"}
    expected = "the evaluation of best has changed since"
    assert changed(run, replace(manifest, inputs=inputs)) == expected
    other_run = replace(manifest, facts={"model": "gone/round-0/best"})
    assert changed(run, other_run).startswith("no run 'gone' in ")
    unscored = {name: value for name, value in inputs.items() if name != "evaluation"}
    assert changed(run, replace(manifest, inputs=unscored)) == ""


def test_a_bundle_under_an_evaluation_depends_on_that_evaluation(
    predicted_run: RunFixture,
) -> None:
    predicted_run.write_config(**HALF)
    run = predicted_run.open().evaluated_as("half")
    evaluate.evaluate(run)
    manifest = packed(run, scored_as="@half")
    assert changed(run, manifest) == ""
    files.remove(run.workspace.evaluation(0, "best@half"))
    assert changed(run, manifest) == "the evaluation of best@half is missing"
