"""Training that starts from a chosen adapter: its weights, its lineage, and honest scores."""

from typing import Any

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture
from pipeline.twin_run import twin
from safetensors.torch import load_file

from parity.cli import main
from parity.competition import ranking as rankings
from parity.competition.lineage import Lineage
from parity.pipeline import dag, dataset, epochs, evaluation, evaluations
from parity.pipeline.stage_cores.mine import mine
from parity.pipeline.stage_cores.train import train
from parity.run import files
from parity.run.experiment import Run


def facts(run: Run) -> dict[str, Any]:
    standing = dag.StageGraph().standing(run, "train")
    assert standing.state == "done"
    assert standing.manifest is not None
    return standing.manifest.facts


def test_training_from_a_chosen_epoch_equals_a_round_whose_parent_it_is(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open("training.init_from=round-0/epoch-1", round_=1)
    expected = twin(predicted_run).at(1)
    for item in (run, expected):
        mine(item, "base")
        train(item)
    assert facts(run)["model"] == "round-0/epoch-1"
    assert facts(run)["losses"] == facts(expected)["losses"]
    chosen, by_parent = (
        run_fixture.contents(
            dag.folder(item, "train"), ".safetensors", ".npy", ".jsonl", "lineage.json"
        )
        for item in (run, expected)
    )
    assert chosen == by_parent
    assert len(chosen) == 10
    assert dag.StageGraph().standing(run, "train").state == "done"


def test_training_from_another_run_starts_from_its_weights_and_inherits_its_lineage(
    predicted_run: RunFixture,
) -> None:
    predicted_run.write_config("other", split={"seed": 1}, training={"seed": 1, "epochs": 1})
    other = predicted_run.run_stages("prepare", "mine", "train", name="other")
    start = {"init_from": "other/round-0/best", "learning_rate": 1e-9, "epochs": 1}
    predicted_run.write_config("child", training=start)
    run = predicted_run.run_stages("prepare", "mine", "train", name="child")
    before, after = (
        load_file(item.workspace.adapter(0) / "adapter_model.safetensors") for item in (other, run)
    )
    assert after.keys() == before.keys()
    for name, weight in after.items():
        assert (weight - before[name]).abs().max() < 1e-6
    train_set, inherited = (
        frozenset(dataset.load(item.config, item.workspace).split.train) for item in (run, other)
    )
    assert inherited - train_set
    lineage = Lineage.read(run.workspace.adapter(0) / "lineage.json").trained_on
    assert lineage == train_set | inherited


def test_a_training_is_stale_after_another_start_is_chosen(predicted_run: RunFixture) -> None:
    run = predicted_run.open(round_=1)
    best = facts(run.at(0))["best_epoch"]
    mine(run)
    train(run)

    def reason(start: str, round_: int = 1) -> str:
        other = predicted_run.open(f"training.init_from={start}", round_=round_)
        return dag.StageGraph().standing(other, "train").reason

    assert reason(f"round-0/epoch-{best}") == reason("small/round-0/best") == ""
    changed = "it started from round-0/best, the run file now has"
    assert reason("base") == f"{changed} base"
    assert reason("round-0/epoch-1") == f"{changed} round-0/epoch-1"
    assert reason("absent").startswith("absent is not a model or a folder")
    for start in ("round-0/epoch-1", "round-1/best"):
        assert reason(start, 0) == ""  # the round that trains it starts as before


def test_rounds_up_to_that_of_the_chosen_start_begin_as_without_it(small_run: RunFixture) -> None:
    small_run.write_config(training={"init_from": "round-0/epoch-1", "epochs": 1})
    run = small_run.run_stages("prepare", "mine", "train")
    assert facts(run)["model"] == "base"
    run = small_run.run_stages("mine", "train", round_=1)
    assert facts(run)["model"] == "round-0/epoch-1"
    assert facts(run.at(0))["model"] == "base"


@pytest.fixture
def child(predicted_run: RunFixture) -> RunFixture:
    """Return a run, `child.toml`, that starts from an adapter of another split."""
    predicted_run.write_config("other", split={"seed": 1}, training={"seed": 1, "epochs": 1})
    predicted_run.run_stages("prepare", "mine", "train", name="other")
    predicted_run.write_config("child", training={"init_from": "other/round-0/best"})
    predicted_run.run_stages("prepare", "mine", name="child")
    return predicted_run


def test_epochs_are_scored_on_rows_that_the_initial_weights_were_not_trained_on(
    child: RunFixture, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluation, "ENOUGH", 5)
    run = child.run_stages("train", name="child")
    assert "epochs are scored on 10 of 21 rows; 11 were trained on\n" in capsys.readouterr().out
    folder, best = dag.folder(run, "train"), facts(run)["best_epoch"]
    data = dataset.load(run.config, run.workspace)
    other = child.open(name="other")
    inherited = set(dataset.load(other.config, other.workspace).split.train)
    clean = [query.query_id for query in data.valid if query.unit not in inherited]
    for number in (1, 2):
        assert list(rankings.read(folder / f"ranking-{number}.jsonl").query_ids) == clean
    assert main(["eval", "child.toml"]) == 0
    saved = epochs.read(folder, best)
    assert saved is not None
    assert saved.scores == evaluations.read(dag.folder(run, "eval"))["best"]


def test_with_too_few_clean_rows_no_epoch_is_scored_and_the_last_is_used(
    child: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = child.run_stages("train", name="child")
    output = " ".join(capsys.readouterr().out.split())  # a long line is folded
    assert (
        "epochs are not scored, the last is used: 10 of 21 rows; 11 were trained on. At least 50 "
        "rows are needed for a score epoch 1: step 4, saved;"
    ) in output
    assert facts(run)["best_epoch"] == 2
    assert not list(dag.folder(run, "train").glob("ranking-*"))
    assert main(["eval", "child.toml"]) == 5
    capsys.readouterr()
    train(run)
    assert "train of round 0 is done" in capsys.readouterr().out


def test_weights_of_unknown_lineage_can_be_trained(
    predicted_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = predicted_run.open("training.init_from=downloaded")
    run.workspace.epoch(0, 1).rename("downloaded")
    files.remove(predicted_run.folder / "downloaded" / "lineage.json")
    train(run)
    output = " ".join(capsys.readouterr().out.split())
    assert "the last is used: lineage unknown: any row may have been trained on epoch" in output
    assert Lineage.of_adapter(run.workspace.adapter(0)).trained_on is None
    assert facts(run)["model"] == "downloaded"
