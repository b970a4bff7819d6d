"""Invoke tasks start `python -m parity COMMAND` or a development tool, in words that it accepts."""

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
from parity.cli import build_parser
from parity.pipeline import registry
from parity.run.command_line import PROGRAM

STAGES = registry.stage_names()
DEV = {
    *("fmt", "lint", "type", "imports", "test", "check", "slow", "lock", "docs"),
    *("kaggle-standin", "faults", "pitfalls"),
}
HEAVY = ("torch", "transformers", "peft", "pandas", "numpy", "pydantic", "kaggle")


class Started(list[str]):
    """Commands that tasks would start."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Note every command that a task starts, and start none."""
    monkeypatch.setenv(PROGRAM, "invoke")
    commands = Started()

    def note(self: Context, words: str, **_: Any) -> Result:
        commands.append(words)
        return Result()

    monkeypatch.setattr(Context, "run", note)
    return commands


def invoke(*words: str) -> None:
    """Run a task as the command line would."""
    Program(namespace=tasks.namespace).run(["invoke", *words], exit=False)


def all_tasks() -> Iterator[tuple[str, "Task[Any]"]]:
    for name, task in tasks.namespace.tasks.items():
        yield name, task
    for group, collection in tasks.namespace.collections.items():
        for name, task in collection.tasks.items():
            yield f"{group}.{name}", task


def parsed(words: str) -> argparse.Namespace:
    """Return what `python -m parity` makes of a command that a task would start."""
    python, module, package, *arguments = shlex.split(words)
    assert (python, module, package) == (sys.executable, "-m", "parity")
    return build_parser().parse_args(arguments)


def test_the_groups_and_the_default_task() -> None:
    names = {name for name, _ in all_tasks()}
    assert names >= {*STAGES, "image.build", "image.lock", *(f"dev.{name}" for name in DEV)}
    assert tasks.namespace.default == "status"
    assert tasks.namespace.collections["dev"].default == "check"
    assert tasks.namespace.collections["image"].default == "build"
    assert not any("_" in name for name in names)
    assert "reload" not in names


def test_a_builtin_keeps_its_name() -> None:
    assert not {name for name in vars(tasks) if name[0] != "_"} & set(dir(builtins))


@pytest.mark.parametrize(("name", "task"), all_tasks(), ids=[name for name, _ in all_tasks()])
def test_every_task_and_every_option_has_a_line_of_help(name: str, task: "Task[Any]") -> None:
    assert task.__doc__
    first, *further = task.__doc__.splitlines()
    assert first.endswith(".")
    assert not further
    for argument in task.get_arguments():
        assert argument.help, (name, argument.names)
        assert "\n" not in argument.help


def test_stages_are_numbered_in_their_order() -> None:
    for number, name in enumerate(STAGES, start=1):
        assert str(tasks.namespace.tasks[name].__doc__).startswith(f"{number}. ")


@pytest.mark.parametrize("name", [name for name, _ in all_tasks()])
def test_a_task_starts_parity_or_a_development_tool(name: str, started: Started) -> None:
    needed = {"bench": ["train"], "image.lock": ["--freeze=x"]}
    invoke(name, *needed.get(name, []))
    assert started
    for words in map(shlex.split, started):
        assert words[0] == sys.executable
        if words[1:3] == ["-m", "parity"]:
            parsed(shlex.join(words))
        else:
            assert name.startswith("dev.")
            assert words[1] in ("-m", "-c") or words[1].startswith(("tools/", "tests/"))


@pytest.mark.parametrize("name", [*STAGES, "report"])
def test_run_file_and_overrides_are_passed_on(name: str, started: Started) -> None:
    override = 'prompt.query={question} it\'s "so"'
    invoke(name)
    invoke(name, "--run", "runs/my own.toml", "--set", "training.epochs=3", f"--set={override}")
    plain, full = map(parsed, started)
    assert (plain.command, plain.run, plain.overrides) == (name, Path("runs/demo.toml"), [])
    assert (full.command, full.run) == (name, Path("runs/my own.toml"))
    assert full.overrides == ["training.epochs=3", override]


@pytest.mark.parametrize("name", registry.stage_names(has_round=True))
@pytest.mark.parametrize("round_", [0, 1, 12])
def test_a_round_is_passed_on(name: str, round_: int, started: Started) -> None:
    invoke(name, "--round", str(round_))
    assert parsed(started[0]).round == round_


def test_eval_passes_on_what_is_scored(started: Started) -> None:
    flags = ["--as", "plain", "--against", "runs/eedi.toml", "--accept-contaminated"]
    invoke("eval", "--model", "epoch-2", *flags)
    invoke("eval", "--all", "--csv", "scores.csv")
    invoke("eval")
    full, every, plain = map(parsed, started)
    expected = ("epoch-2", "plain", Path("runs/eedi.toml"), True)
    assert (full.model, full.evaluation, full.against, full.accept_contaminated) == expected
    assert (every.model, every.csv) == ("all", Path("scores.csv"))
    assert (plain.model, plain.evaluation, plain.against, plain.csv) == ("", "", None, None)


@pytest.mark.parametrize("name", ["mine", "predict", "package", "forecast"])
def test_a_model_is_passed_on(name: str, started: Started) -> None:
    invoke(name, "--model", "other/round-0/best")
    assert parsed(started[0]).model == "other/round-0/best"


def test_two_records_are_passed_on(started: Started) -> None:
    invoke("reconcile", "demo/round-1/eval", "0.304", "--import", "run_report.json", "--with-text")
    (full,) = map(parsed, started)
    assert full.records == ["demo/round-1/eval", "0.304"]
    assert full.imported == Path("run_report.json")
    assert (full.with_text, full.json) == (True, False)


def test_one_or_both_records_may_be_left_out(started: Started) -> None:
    invoke("reconcile", "--run", "runs/eedi.toml")
    invoke("reconcile", "runs.csv", "--json")
    invoke("reconcile", "A", "B", "status")
    results = [parsed(words) for words in started]
    records = [getattr(result, "records", None) for result in results]
    assert records == [[], ["runs.csv"], ["A", "B"], None]
    assert (results[0].run, results[1].json) == (Path("runs/eedi.toml"), True)


@pytest.mark.parametrize("name", [*registry.stage_names(runs_in_image=True), "rehearse"])
def test_the_place_of_a_stage_is_passed_on(name: str, started: Started) -> None:
    invoke(name, "--where", "image")
    invoke(name)
    assert [parsed(words).where for words in started] == ["image", "here"]


def test_attribution_and_advice_are_passed_on(started: Started) -> None:
    invoke("reconcile", "A", "B", "--attribute")
    invoke("advise", "runs.csv", "--json")
    invoke("advise")
    attribution, table, plain = map(parsed, started)
    assert (attribution.records, attribution.attribute) == (["A", "B"], True)
    assert (table.json, plain.json) == (True, False)
    assert Path("runs.csv") in vars(table).values()


def test_the_way_to_kaggle_passes_on_its_options(started: Started) -> None:
    invoke("publish", "--base", "--dry-run")
    invoke("push", "--as", "notebook", "--accept-risk", "--json")
    invoke("follow", "--minutes", "5")
    invoke("submit", "--dry-run")
    publish, push, follow, submit = map(parsed, started)
    assert (publish.content, publish.dry_run, publish.json) == ("base", True, False)
    assert (push.form, push.risk, push.json, push.dry_run) == ("notebook", True, True, False)
    assert follow.minutes == 5.0
    assert submit.dry_run


def test_commands_pass_on_their_options(started: Started) -> None:
    invoke("plan", "--device", "l4x4", "--queries", "9")
    invoke("doctor", "--online")
    invoke("image", "--base", "localhost/standin:py312")
    invoke("image.lock", "--freeze", "freeze.txt")
    invoke("rehearse", "--image")
    invoke("mine", "--import", "their negatives.jsonl", "--round=1")
    invoke("demo", "--data", "../shared/eedi", "--quick", "--set", "training.epochs=1")
    invoke("test", "--only", "ties or cuts")
    plan, doctor, image, lock, rehearse, mining, demo, test = map(parsed, started)
    assert (plan.device, plan.queries) == ("l4x4", 9)
    assert doctor.reach == "online"
    assert (image.command, image.base) == ("image", "localhost/standin:py312")
    assert (lock.command, lock.freeze) == ("image.lock", Path("freeze.txt"))
    assert rehearse.image
    assert (mining.imported, mining.round) == (Path("their negatives.jsonl"), 1)
    assert (demo.data, demo.quick) == (Path("../shared/eedi"), True)
    assert demo.overrides == ["training.epochs=1"]
    assert test.only == "ties or cuts"


def test_without_a_name_the_status_of_all_runs_is_shown(started: Started) -> None:
    invoke()
    invoke("status", "--run", "runs/eedi.toml")
    plain, single = map(parsed, started)
    assert (plain.command, plain.run) == ("status", None)
    assert (single.command, single.run) == ("status", Path("runs/eedi.toml"))


def test_dev_checks_everything_and_rewrites_nothing(started: Started) -> None:
    invoke("dev")
    commands = list(started)
    started.clear()
    invoke("dev.check")
    assert started == commands
    assert [shlex.split(words)[1:4] for words in commands] == [
        ["-m", "ruff", "format"],
        ["-m", "ruff", "check"],
        ["-m", "mypy"],
        ["-c", "from importlinter.cli import lint_imports_command as run; run()"],
        ["-m", "pytest", "-q"],
    ]
    assert "--check" in commands[0]
    assert not any("--fix" in words for words in commands)


@pytest.mark.parametrize("name", ["./inv", ""])
def test_messages_spell_commands_as_invoke_was_started(
    name: str, root: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "invoke", "mine", "--set=split.seed=7"]
    code = (
        "import os, subprocess, sys; os.environ.update(PARITY_DATA=sys.argv[1]);"
        "os.environ.pop('PARITY_PROGRAM', None);"
        "os.environ.update({'PARITY_PROGRAM': sys.argv[2]} if sys.argv[2] else {});"
        "sys.exit(subprocess.call(sys.argv[3:]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), name, *words],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    command = f"{name or 'invoke'} prepare --run runs/demo.toml --set=split.seed=7"
    assert answer.stderr.splitlines()[-1].endswith(f"Run: `{command}`")
    assert answer.returncode == 4


def test_a_command_that_fails_gives_its_exit_code(root: Path) -> None:
    words = [sys.executable, "-m", "invoke", "prepare", "--run", "runs/nope.toml"]
    answer = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (2, "")
    echo, problem = answer.stderr.splitlines()
    assert echo == "$ python -m parity prepare --run=runs/nope.toml"
    assert problem.startswith("error: runs/nope.toml: no such run file")


def printed(words: Sequence[str], root: Path) -> tuple[str, list[str]]:
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
    return answer.stdout, answer.stderr.splitlines()[-1].split()


def test_the_list_is_in_pipeline_order_and_loads_no_heavy_package(root: Path) -> None:
    text, loaded = printed(["--list"], root)
    assert loaded == []
    names = [
        line.split()[0] for line in text.splitlines() if line.startswith("  ") and line[2] != " "
    ]
    listed = [name for name in registry.table() if not name.startswith(("image", "reload"))]
    assert names[: len(listed)] == listed
    assert names[len(listed) : len(listed) + 2] == ["image.build", "image.lock"]
    assert {name.removeprefix("dev.") for name in names[len(listed) + 2 :]} == DEV
    assert "Default task: status" in text


@pytest.mark.parametrize(
    "name", [name for name in registry.table() if name not in ("image", "reload")]
)
def test_help_of_a_task_lists_its_options(name: str, root: Path) -> None:
    text, _ = printed([name, "--help"], root)
    options = registry.table()[name].all_options
    assert all(option.flag in text for option in options if not option.is_positional)
