"""Tasks start `python -m parity STAGE` or a dev tool, in words that these understand."""

import argparse
import builtins
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context
from invoke.program import Program
from invoke.runners import Result
from invoke.tasks import Task

import tasks
from parity import __main__ as command
from parity.pipeline import dag

TOOLS = (
    "story",
    "report",
    "demo",
    "test",
    "plan",
    "doctor",
    "forecast",
    "advise",
    "wheels",
    "image.build",
    "image.lock",
)
DEV = {
    "fmt",
    "lint",
    "type",
    "imports",
    "test",
    "check",
    "slow",
    "lock",
    "kaggle-standin",
    "faults",
    "pitfalls",
}
ROUNDED = tuple(name for name in dag.STAGES if name != "prepare")
HEAVY = ("torch", "transformers", "peft", "pandas", "numpy", "pydantic", "parity", "kaggle")


class Asked(list[str]):
    """What tasks would start."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Write down every command a task starts, and start none."""
    found = Asked()

    def note(self: Context, words: str, **_: Any) -> Result:
        found.append(words)
        return Result()

    monkeypatch.setattr(Context, "run", note)
    return found


def invoke(*words: str) -> None:
    """Run a task as the command line would."""
    Program(namespace=tasks.namespace).run(["invoke", *words], exit=False)


def every() -> Iterator[tuple[str, "Task[Any]"]]:
    for name, task in tasks.namespace.tasks.items():
        yield name, task
    for group, collection in tasks.namespace.collections.items():
        for name, task in collection.tasks.items():
            yield f"{group}.{name}", task


def parsed(words: str) -> argparse.Namespace:
    """Return what `python -m parity` makes of a command that a task would start."""
    python, module, package, *rest = shlex.split(words)
    assert (python, module, package) == (sys.executable, "-m", "parity")
    return command._parser().parse_args(rest)


def test_the_names_are_the_stages_and_the_tools() -> None:
    names = {name for name, _ in every()}
    assert names >= {*dag.STAGES, *TOOLS, *(f"dev.{name}" for name in DEV)}
    assert tasks.namespace.default == "story"
    assert tasks.namespace.collections["dev"].default == "check"
    assert not any("_" in name for name in names)


def test_a_builtin_keeps_its_name() -> None:
    assert not {name for name in vars(tasks) if name[0] != "_"} & set(dir(builtins))


@pytest.mark.parametrize(("name", "task"), every(), ids=[name for name, _ in every()])
def test_every_task_and_every_option_has_a_line_of_help(name: str, task: "Task[Any]") -> None:
    assert task.__doc__
    first, *more = task.__doc__.splitlines()
    assert first.endswith(".")
    assert not more
    for argument in task.get_arguments():
        assert argument.help, (name, argument.names)
        assert "\n" not in argument.help


def test_stages_are_numbered_in_their_order() -> None:
    for number, name in enumerate(dag.STAGES, start=1):
        assert str(tasks.namespace.tasks[name].__doc__).startswith(f"{number}. ")


@pytest.mark.parametrize("name", [name for name, _ in every()])
def test_a_task_starts_parity_or_a_dev_tool(name: str, asked: Asked) -> None:
    needed = {"bench": ["train"], "image.lock": ["--freeze=x"]}
    invoke(name, *needed.get(name, []))
    assert asked
    for words in map(shlex.split, asked):
        assert words[0] == sys.executable
        known = (
            ["-m", "pytest"],
            ["-m", "ruff"],
            ["-m", "mypy"],
            ["tools/lock.py"],
            ["tests/kagglestandin_server.py"],
            ["tests/fault_table.py"],
        )
        linter = "from importlinter.cli import lint_imports_command as run; run()"
        if words[1:3] == ["-m", "parity"]:
            parsed(shlex.join(words))
        elif words[1:3] == ["-m", "benchmarks"]:
            assert name == "bench"
        else:
            assert name.startswith(("dev.", "test"))
            assert any(words[1:3][: len(one)] == one for one in (*known, ["-c", linter]))


@pytest.mark.parametrize("name", [*dag.STAGES, "report"])
def test_a_stage_is_started_for_the_run_and_the_settings_asked_for(name: str, asked: Asked) -> None:
    odd = 'prompt.query={question} it\'s "so"'
    invoke(name)
    invoke(name, "--run", "runs/my own.toml", "--set", "training.epochs=3", f"--set={odd}")
    bare, full = map(parsed, asked)
    assert (bare.stage, bare.run, bare.overrides) == (name, Path("runs/demo.toml"), [])
    assert (full.stage, full.run) == (name, Path("runs/my own.toml"))
    assert full.overrides == ["training.epochs=3", odd]
    assert (bare.round, full.round) == (0, 0)


@pytest.mark.parametrize("name", ROUNDED)
@pytest.mark.parametrize("round_", [0, 1, 12])
def test_a_round_is_handed_on(name: str, round_: int, asked: Asked) -> None:
    invoke(name, "--round", str(round_))
    assert parsed(asked[0]).round == round_


def test_eval_hands_on_what_is_scored(asked: Asked) -> None:
    invoke("eval", "--adapter", "epoch-2", "--against", "runs/eedi.toml", "--accept-contaminated")
    invoke("eval")
    full, bare = map(parsed, asked)
    assert (full.adapter, full.against, full.accept_contaminated) == (
        "epoch-2",
        Path("runs/eedi.toml"),
        True,
    )
    assert (bare.adapter, bare.against, bare.accept_contaminated) == ("best", None, False)


def test_two_sides_are_handed_on(asked: Asked) -> None:
    invoke("reconcile", "demo/round-1/eval", "0.304", "--import", "run_report.json", "--with-text")
    (full,) = map(parsed, asked)
    assert (full.sides, full.imported) == (["demo/round-1/eval", "0.304"], Path("run_report.json"))
    assert (full.with_text, full.json) == (True, False)


def test_sides_may_be_left_out_one_or_both(asked: Asked) -> None:
    invoke("reconcile", "--run", "runs/eedi.toml")
    invoke("reconcile", "runs.csv", "--json")
    invoke("reconcile", "A", "B", "story")
    found = [parsed(words) for words in asked]
    assert [getattr(one, "sides", None) for one in found] == [[], ["runs.csv"], ["A", "B"], None]
    assert (found[0].run, found[1].json) == (Path("runs/eedi.toml"), True)


@pytest.mark.parametrize("name", ["prepare", "mine", "train", "eval", "predict", "rehearse"])
def test_where_a_stage_runs_is_handed_on(name: str, asked: Asked) -> None:
    invoke(name, "--where", "image")
    invoke(name)
    assert [one.where for one in map(parsed, asked)] == ["image", "here"]


def test_what_is_attributed_and_advised_from_is_handed_on(asked: Asked) -> None:
    invoke("reconcile", "A", "B", "--attribute")
    invoke("advise", "runs.csv", "--json")
    invoke("advise")
    ladder, log, bare = map(parsed, asked)
    assert (ladder.sides, ladder.attribute) == (["A", "B"], True)
    assert (log.log, log.json, bare.log, bare.json) == (Path("runs.csv"), True, None, False)


def test_the_way_to_kaggle_hands_on_its_options(asked: Asked) -> None:
    invoke("publish", "--base", "--dry-run")
    invoke("push", "--as", "notebook", "--accept-risk", "--json")
    invoke("follow", "--minutes", "5")
    invoke("submit", "--dry-run")
    publish, push, follow, submit = map(parsed, asked)
    assert (publish.base, publish.dry_run, publish.json) == (True, True, False)
    assert (push.form, push.accept_risk, push.json, push.dry_run) == ("notebook", True, True, False)
    assert follow.minutes == 5.0
    assert submit.dry_run


def test_tools_hand_on_their_options(asked: Asked) -> None:
    invoke("plan", "--device", "l4x4", "--queries", "9")
    invoke("doctor", "--online")
    invoke("image", "--base", "localhost/standin:py312")
    invoke("image.lock", "--freeze", "freeze.txt")
    invoke("rehearse", "--image")
    plan, doctor, image, lock, rehearse = map(parsed, asked)
    assert (plan.device, plan.queries) == ("l4x4", 9)
    assert doctor.online
    assert (image.stage, image.base) == ("image", "localhost/standin:py312")
    assert (lock.stage, lock.freeze) == ("image.lock", Path("freeze.txt"))
    assert rehearse.image


def test_mine_hands_on_a_file_to_import(asked: Asked) -> None:
    invoke("mine", "--import", "their negatives.jsonl", "--round=1")
    invoke("mine")
    full, bare = map(parsed, asked)
    assert (full.imported, full.round) == (Path("their negatives.jsonl"), 1)
    assert bare.imported is None


def test_demo_hands_on_its_data(asked: Asked) -> None:
    invoke("demo", "--data", "../shared/eedi", "--quick", "--set", "training.epochs=1")
    invoke("demo")
    full, bare = map(parsed, asked)
    assert (full.data, full.quick) == (Path("../shared/eedi"), True)
    assert full.overrides == ["training.epochs=1"]
    assert (bare.data, bare.quick, bare.overrides) == (None, False, [])


def test_without_a_name_the_story_of_all_runs_is_told(asked: Asked) -> None:
    invoke()
    invoke("story", "--run", "runs/eedi.toml")
    bare, one = map(parsed, asked)
    assert (bare.stage, bare.run) == ("story", None)
    assert (one.stage, one.run) == ("story", Path("runs/eedi.toml"))


def test_tests_are_chosen_by_name(asked: Asked) -> None:
    invoke("test")
    invoke("test", "--only", "ties or cuts")
    bare, one = map(shlex.split, asked)
    assert bare[1:3] == one[1:3] == ["-m", "pytest"]
    assert "-k" not in bare
    assert one[-2:] == ["-k", "ties or cuts"]


def test_dev_alone_checks_everything_and_rewrites_nothing(asked: Asked) -> None:
    invoke("dev")
    alone = list(asked)
    asked.clear()
    invoke("dev.check")
    assert asked == alone
    assert [shlex.split(words)[1:4] for words in alone] == [
        ["-m", "ruff", "format"],
        ["-m", "ruff", "check"],
        ["-m", "mypy"],
        ["-c", "from importlinter.cli import lint_imports_command as run; run()"],
        ["-m", "pytest", "-q"],
    ]
    assert "--check" in alone[0]
    assert not any("--fix" in words for words in alone)


def test_a_command_that_fails_gives_its_exit_code(root: Path) -> None:
    words = [sys.executable, "-m", "invoke", "prepare", "--run", "runs/nope.toml"]
    answer = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (2, "")
    echo, fault = answer.stderr.splitlines()
    assert echo == "$ python -m parity prepare runs/nope.toml"
    assert fault.startswith("error: runs/nope.toml: no such run file")


def ran(words: Sequence[str], root: Path) -> tuple[str, list[str]]:
    """Return what invoke prints, and which heavy packages it loaded."""
    code = f"""
import sys
from invoke.main import program
program.run(["invoke", *sys.argv[1:]], exit=False)
print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=root, capture_output=True, text=True, check=True
    )
    return answer.stdout, answer.stderr.split()


def test_a_list_of_tasks_loads_no_package_that_computes(root: Path) -> None:
    printed, loaded = ran(["--list"], root)
    assert loaded == []
    for name in (*dag.STAGES, *TOOLS):
        assert f"\n  {name} " in printed
    assert "Default task: story" in printed


@pytest.mark.parametrize("name", ["mine", "eval", "demo"])
def test_help_of_a_task_lists_its_options(name: str, root: Path) -> None:
    printed, loaded = ran([name, "--help"], root)
    assert loaded == []
    options = {
        "mine": ("--import", "--round", "--run", "--set"),
        "eval": ("--adapter", "--against", "--accept-contaminated", "--round", "--run", "--set"),
        "demo": ("--data", "--quick", "--set"),
    }
    assert all(option in printed for option in options[name])
