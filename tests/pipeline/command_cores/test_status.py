"""A person reads where a run stands, and the one command that comes next."""

import shutil
from pathlib import Path

import pytest
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench

from parity.pipeline.command_cores.status import story
from parity.run.errors import BadConfig

COLUMNS = 80
AFTER = ("package", "rehearse", "publish", "push", "follow", "submit", "reconcile")
"""What comes after the stages that `made` has done."""
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
  next: invoke package --run small.toml
"""


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> "Story":
    return Story(capsys)


class Story:
    """What `story` prints, each line proven to fit a terminal."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def of(self, file: str | None = None, *sets: str) -> str:
        self._capsys.readouterr()
        story(Path(file) if file else None, sets)
        said = self._capsys.readouterr().out
        assert max(map(len, said.splitlines())) <= COLUMNS
        return said


def next_of(said: str) -> list[str]:
    return [line.strip() for line in said.splitlines() if ": invoke" in line]


def test_the_stages_of_a_run_stand_in_order_with_the_next_command(made: Bench, told: Story) -> None:
    assert told.of("small.toml") == TABLE


def test_step_by_step_the_next_command_is_the_next_stage(bench: Bench, told: Story) -> None:
    for stage in ("prepare", "mine", "train", "eval", "predict"):
        assert next_of(told.of("small.toml")) == [f"next: invoke {stage} --run small.toml"]
        bench.make(stage)


def test_after_the_local_stages_each_step_of_the_way_to_kaggle_comes_next(
    made: Bench, told: Story
) -> None:
    for stage in AFTER:
        said = told.of("small.toml")
        assert f"\n  {stage:<10}missing\n" in said
        assert "reconcile of" not in said
        assert next_of(said) == [f"next: invoke {stage} --run small.toml"]
        benches.pretend(made.run(), stage)
        assert f"\n  {stage:<10}done\n" in told.of("small.toml")
    assert "\n  reconcile of round 0: same\n  next: " in told.of("small.toml")


def test_a_step_on_kaggle_that_is_of_another_bundle_is_stale(made: Bench, told: Story) -> None:
    benches.pretend(made.run(), *AFTER)
    path = made.run().workspace.stage("package", 0) / "manifest.json"
    path.unlink()
    said = told.of("small.toml")
    assert "  package   missing\n  rehearse  stale\n  publish   stale\n  push      stale\n" in said
    assert "  submit of round 0: package of round 0 is missing\n" in said
    assert next_of(said) == ["next: invoke package --run small.toml"]


def test_a_stale_stage_comes_next_and_says_why(made: Bench, told: Story) -> None:
    made.write(training={"seed": 1})
    said = told.of("small.toml")
    assert "  train     stale\n" in said
    assert "  train of round 0: training.seed was 0, the run now says 1\n" in said
    assert "  predict of round 0: train of round 0 is stale\n" in said
    assert next_of(said) == ["next: invoke train --run small.toml"]
    assert next_of(told.of("small.toml", "training.seed=0")) == [
        "next: invoke package --run small.toml --set=training.seed=0"
    ]


def test_a_long_reason_is_cut_to_the_terminal(made: Bench, told: Story) -> None:
    made.write(prompt={"query": "Correct: {correct} " * 5})
    assert "  mine of round 0: prompt.query was " in told.of("small.toml")


def test_each_round_has_a_column(made: Bench, told: Story) -> None:
    made.make("mine", round_=1)
    said = told.of("small.toml")
    assert "  stage     round 0   round 1\n  prepare   done\n  mine      done      done\n" in said
    assert "  train     done      missing\n" in said
    benches.pretend(made.run(), *AFTER)
    assert next_of(told.of("small.toml")) == ["next: invoke train --run small.toml --round 1"]


def test_where_all_is_done_a_report_or_a_further_round_comes_next(made: Bench, told: Story) -> None:
    long = "runs/eedi-gpu.toml"  # the longest name there is
    (made.folder / "runs").mkdir()
    shutil.move("small.toml", long)
    shutil.move("data/runs/small", "data/runs/eedi-gpu")
    benches.pretend(made.run(name="runs/eedi-gpu"), *AFTER)
    assert next_of(told.of(long)) == [
        f"next: invoke report --run {long}",
        f"or a further round: invoke mine --run {long} --round 1",
    ]


def test_where_nothing_is_held_out_there_is_nothing_to_score(bench: Bench, told: Story) -> None:
    bench.write(split={"kind": "full"})
    for stage in ("prepare", "mine", "train"):
        assert "\n  eval\n" in told.of("small.toml")
        bench.make(stage)
    assert next_of(told.of("small.toml")) == ["next: invoke predict --run small.toml"]


def test_bare_all_runs_that_have_begun_are_told_and_the_others_named(
    made: Bench, told: Story
) -> None:
    runs = made.folder / "runs"
    runs.mkdir()
    for name in ("other", "small", "third"):
        shutil.copy("small.toml", runs / f"{name}.toml")
    said = told.of()
    assert said.startswith("runs/small.toml: split random-s0-v0.4\n")
    assert said.endswith("\n\nnot begun: runs/other.toml, runs/third.toml\n")


def test_bare_with_nothing_begun_the_demo_comes_next(bench: Bench, told: Story) -> None:
    runs = bench.folder / "runs"
    runs.mkdir()
    names = [f"experiment-{number}" for number in range(9)]
    for name in names:
        shutil.copy("small.toml", runs / f"{name}.toml")
    said = told.of()
    assert said.startswith("not begun: runs/experiment-0.toml, ")
    assert all(f"runs/{name}.toml" in said for name in names)
    assert next_of(said) == ["next: invoke demo   (everything, on the project's own competition)"]


def test_bare_in_a_folder_without_runs_says_what_is_missing(bench: Bench) -> None:
    with pytest.raises(BadConfig, match=r"no run file in runs/; a run is one TOML file there"):
        story(None)


def test_a_run_file_that_is_wrong_is_refused(bench: Bench) -> None:
    with pytest.raises(BadConfig, match=r"absent\.toml: no such run file \(there: small\.toml\)"):
        story(Path("absent.toml"))
    with pytest.raises(BadConfig, match=r"training\.r: "):
        story(Path("small.toml"), ("training.r=many",))


def test_a_story_loads_no_torch_and_changes_nothing(made: Bench) -> None:
    before = sorted(path for path in made.folder.rglob("*"))
    answer = made.process("story", "small.toml", PYTHONPROFILEIMPORTTIME="1")
    assert answer.stdout == TABLE
    assert answer.returncode == 0
    assert "parity.pipeline.dag" in answer.stderr  # what the story itself imports is listed
    assert "| torch" not in answer.stderr
    assert sorted(path for path in made.folder.rglob("*")) == before
