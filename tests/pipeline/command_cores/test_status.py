"""`status` prints the state of every stage, and the next command."""

import shutil
from pathlib import Path

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture

from parity.pipeline import evaluations
from parity.pipeline.command_cores.status import status
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage_cores import evaluate
from parity.run.command_line import PROGRAM
from parity.run.errors import BadConfig
from parity.run.experiment import Run

COLUMNS = 80
AFTER = ("package", "rehearse", "publish", "push", "follow", "submit", "reconcile")
"""What comes after the stages that `predicted_run` has finished."""
TABLE = """\
small.toml: split random-s0-v0.4
  stage     round 0
  prepare   done
  mine      done
  train     done
  eval      done
  predict   done
  package   missing
  rehearse  missing
  publish   missing
  push      missing
  follow    missing
  submit    missing
  reconcile missing
  scores (projection): best {score}
  next: ./inv package --run small.toml
"""


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> "Status":
    monkeypatch.setenv(PROGRAM, "./inv")
    return Status(capsys)


class Status:
    """What `status` prints, whose lines fit a terminal."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def of(self, file: str | None = None, *sets: str) -> str:
        self._capsys.readouterr()
        status(Path(file) if file else None, sets)
        text = self._capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= COLUMNS
        return text


def next_of(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines() if ": ./inv" in line)
    return [line for line in lines if "not scored" not in line]


def score_of(run: Run, label: str) -> str:
    """Return a projection as it is printed."""
    scores = evaluations.read(run.workspace.evaluation(run.round, label))[label]
    assert scores.projection is not None
    return f"{scores.projection.value:.3f}".removeprefix("0")


def scores_in(text: str) -> str:
    """Return what follows `scores` in a table, on one line."""
    lines = text.split("  scores ")[1].split("\n  next: ")[0]
    return " ".join(lines.split())


def test_the_stages_of_a_run_are_listed_in_order_with_the_next_command(
    predicted_run: RunFixture, printed: Status
) -> None:
    run = predicted_run.open()
    assert printed.of("small.toml") == TABLE.format(score=score_of(run, "best"))


def test_step_by_step_the_next_command_is_the_next_stage(
    small_run: RunFixture, printed: Status
) -> None:
    for stage in ("prepare", "mine", "train", "eval", "predict"):
        assert next_of(printed.of("small.toml")) == [f"next: ./inv {stage} --run small.toml"]
        small_run.run_stages(stage)


def test_after_the_local_stages_each_step_of_the_way_to_kaggle_comes_next(
    predicted_run: RunFixture, printed: Status
) -> None:
    for stage in AFTER:
        text = printed.of("small.toml")
        assert f"\n  {stage:<10}missing\n" in text
        assert "reconcile of" not in text
        assert next_of(text) == [f"next: ./inv {stage} --run small.toml"]
        run_fixture.pretend(predicted_run.open(), stage)
        assert f"\n  {stage:<10}done\n" in printed.of("small.toml")
    assert "\n  reconcile of round 0: same\n  scores (" in printed.of("small.toml")


def test_a_step_on_kaggle_that_is_of_another_bundle_is_stale(
    predicted_run: RunFixture, printed: Status
) -> None:
    run_fixture.pretend(predicted_run.open(), *AFTER)
    path = predicted_run.open().workspace.stage("package", 0) / "manifest.json"
    path.unlink()
    text = printed.of("small.toml")
    assert "  package   missing\n  rehearse  stale\n  publish   stale\n  push      stale\n" in text
    assert "  submit of round 0: package of round 0 is missing\n" in text
    assert next_of(text) == ["next: ./inv package --run small.toml"]


def test_a_stale_stage_comes_next_and_says_why(predicted_run: RunFixture, printed: Status) -> None:
    predicted_run.write_config(mining={"seed": 1})
    text = printed.of("small.toml")
    assert "  mine      stale\n  train     stale\n  eval      done\n" in text
    assert "  mine of round 0: mining.seed was 0, the run file now has 1\n" in text
    assert "  train of round 0: mine of round 0 is stale\n" in text
    assert next_of(text) == ["next: ./inv mine --run small.toml"]
    assert next_of(printed.of("small.toml", "mining.seed=0")) == [
        "next: ./inv package --run small.toml --set=mining.seed=0"
    ]


def test_the_scores_of_models_and_evaluations_are_listed(
    predicted_run: RunFixture, printed: Status
) -> None:
    run = predicted_run.open()
    evaluate.evaluate(run, "base")
    predicted_run.write_config(**{"evaluations.short.prompt": {"query_max_length": 32}})
    run = predicted_run.open()
    evaluate.evaluate(run, "epoch-1", evaluation="short")
    evaluate.evaluate(predicted_run.open("prompt.passage_max_length=16"))
    (quick,) = run.workspace.evaluation(0, "x").parent.glob("best@*")
    labels = ("base", "best", "epoch-1@short", quick.name)
    assert len(quick.name) == len("best@12345678")
    listed = ", ".join(f"{label} {score_of(run, label)}" for label in labels)
    assert scores_in(printed.of("small.toml")).startswith(f"(projection): {listed} ")


def test_missing_scores_are_counted_where_the_run_file_names_evaluations(
    predicted_run: RunFixture, printed: Status
) -> None:
    assert "not scored" not in printed.of("small.toml")  # nobody asked for further scores
    predicted_run.write_config(**{"evaluations.short.prompt": {"query_max_length": 32}})
    count = len(evaluations.missing(predicted_run.open(), StageGraph()))
    assert count == 5  # of base, one other epoch and best, under two settings, one is there
    line = "  not scored, models × evaluations: {}. ./inv eval --run small.toml --all\n  next: "
    assert line.format(count) in printed.of("small.toml")
    evaluate.evaluate(predicted_run.open(), evaluation="short")
    assert line.format(count - 1) in printed.of("small.toml")
    evaluate.evaluate(predicted_run.open(), "all")
    assert "not scored" not in printed.of("small.toml")
    predicted_run.write_config(**{"evaluations.short.prompt": {"query_max_length": 40}})
    text = printed.of("small.toml")
    assert line.format(3) in text
    assert "@short" not in text  # they are stale


def test_without_a_current_score_there_is_no_line_of_scores(
    predicted_run: RunFixture, printed: Status
) -> None:
    predicted_run.write_config(scoring={"seed": 1})
    text = printed.of("small.toml")
    assert "  eval of round 0: scoring.seed was 0, the run file now has 1\n  next: " in text
    assert "scores (" not in text


def test_a_long_reason_is_cut_to_the_terminal(predicted_run: RunFixture, printed: Status) -> None:
    predicted_run.write_config(prompt={"query": "Correct: {correct} " * 5})
    assert "  mine of round 0: prompt.query was " in printed.of("small.toml")


def test_each_round_has_a_column(predicted_run: RunFixture, printed: Status) -> None:
    predicted_run.run_stages("mine", round_=1)
    text = printed.of("small.toml")
    assert "  stage     round 0   round 1\n  prepare   done\n  mine      done      done\n" in text
    assert "  train     done      missing\n" in text
    run_fixture.pretend(predicted_run.open(), *AFTER)
    assert next_of(printed.of("small.toml")) == ["next: ./inv train --run small.toml --round 1"]


def test_where_all_is_done_a_report_or_a_further_round_comes_next(
    predicted_run: RunFixture, printed: Status
) -> None:
    long = "runs/eedi-gpu.toml"  # the longest name there is
    (predicted_run.folder / "runs").mkdir()
    shutil.move("small.toml", long)
    shutil.move("data/runs/small", "data/runs/eedi-gpu")
    run_fixture.pretend(predicted_run.open(name="runs/eedi-gpu"), *AFTER)
    assert next_of(printed.of(long)) == [
        f"next: ./inv report --run {long}",
        f"or a further round: ./inv mine --run {long} --round 1",
    ]


def test_where_nothing_is_held_out_there_is_nothing_to_score(
    small_run: RunFixture, printed: Status
) -> None:
    small_run.write_config(split={"kind": "full"})
    for stage in ("prepare", "mine", "train"):
        assert "\n  eval\n" in printed.of("small.toml")
        small_run.run_stages(stage)
    assert next_of(printed.of("small.toml")) == ["next: ./inv predict --run small.toml"]


def test_without_a_run_file_all_started_runs_are_printed_and_the_others_named(
    predicted_run: RunFixture, printed: Status
) -> None:
    runs = predicted_run.folder / "runs"
    runs.mkdir()
    for name in ("other", "small", "third"):
        shutil.copy("small.toml", runs / f"{name}.toml")
    text = printed.of()
    assert text.startswith("runs/small.toml: split random-s0-v0.4\n")
    assert text.endswith("\n\nnot started: runs/other.toml, runs/third.toml\n")


def test_without_any_started_run_the_demo_comes_next(
    small_run: RunFixture, printed: Status
) -> None:
    runs = small_run.folder / "runs"
    runs.mkdir()
    names = [f"experiment-{number}" for number in range(9)]
    for name in names:
        shutil.copy("small.toml", runs / f"{name}.toml")
    text = printed.of()
    assert text.startswith("not started: runs/experiment-0.toml, ")
    assert all(f"runs/{name}.toml" in text for name in names)
    assert next_of(text) == ["next: ./inv demo   (everything, on the synthetic competition)"]


def test_a_folder_without_runs_is_named(small_run: RunFixture) -> None:
    with pytest.raises(BadConfig, match=r"no run file in runs/\. Write one TOML file"):
        status(None)


def test_a_run_file_that_is_wrong_is_refused(small_run: RunFixture) -> None:
    with pytest.raises(
        BadConfig, match=r"absent\.toml: no such run file \(in its folder: small\.toml\)"
    ):
        status(Path("absent.toml"))
    with pytest.raises(BadConfig, match=r"training\.r: "):
        status(Path("small.toml"), ("training.r=many",))


def test_status_loads_no_torch_and_changes_nothing(predicted_run: RunFixture) -> None:
    before = sorted(path for path in predicted_run.folder.rglob("*"))
    answer = predicted_run.run_parity(
        "status", "small.toml", PYTHONPROFILEIMPORTTIME="1", **{PROGRAM: "./inv"}
    )
    assert answer.stdout == TABLE.format(score=score_of(predicted_run.open(), "best"))
    assert answer.returncode == 0
    assert "parity.pipeline.dag" in answer.stderr  # its own imports are listed
    assert "| torch" not in answer.stderr
    assert sorted(path for path in predicted_run.folder.rglob("*")) == before
