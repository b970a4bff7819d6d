"""A stage is declared once, in one file, and every list of stages contains it."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

import tasks
from parity.cli import build_parser
from parity.pipeline import registry
from parity.pipeline.command_cores import status
from parity.pipeline.declaration import Command, Stage
from parity.run.command_line import PROGRAM
from parity.run.config.run_file import Config
from parity.run.errors import StaleInput
from parity.run.experiment import open_run
from tools import cli_reference
from tools.invoke_tasks import command_task

SOURCE = Path(registry.__file__).parents[1]
ORDER = (
    *("prepare", "mine", "train", "eval", "predict", "package", "rehearse"),
    *("publish", "push", "follow", "submit", "reconcile"),
)
DUMMY = '''
"""Declare `distill`, a dummy."""

from parity.pipeline.declaration import Option, Stage

STAGE = Stage(
    "distill",
    "Write nothing at all.",
    "distill:distill",
    options=(Option("--depth", "depth of the dummy", type=int, default=3),),
    needs=("mine",),
    config=("mining",),
)


def distill(run, *, depth):
    """Return the depth."""
    return depth
'''
HEAVY = ("torch", "transformers", "peft", "pandas", "numpy", "pydantic", "sklearn", "kaggle")
EXCUSED = {"ledger.py"}
"""Files that name stages in the schema of what they write."""
COMMANDS = tuple(registry.table().values())


@pytest.fixture
def with_dummy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Add one file to the folder of stages."""
    (tmp_path / "distill.py").write_text(DUMMY)
    folder = importlib.import_module(registry.STAGES)
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.forget()
    yield registry.find_stage("distill")
    registry.forget()
    sys.modules.pop(f"{registry.STAGES}.distill", None)
    sys.modules.pop("distill", None)


def test_the_stages_are_ordered_by_their_needs() -> None:
    assert registry.stage_names() == ORDER
    for stage in registry.stages():
        before = ORDER[: ORDER.index(stage.name)]
        assert {*stage.needs, *stage.follows} <= set(before)


def test_a_stage_is_added_by_one_file(
    with_dummy: Stage,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The graph and its order.
    names = registry.stage_names()
    assert names.index("mine") < names.index("distill") < names.index("reconcile")
    assert set(names) == {*ORDER, "distill"}
    # Status.
    monkeypatch.chdir(root)
    monkeypatch.setenv("PARITY_DATA", str(tmp_path / "data"))
    status.status(Path("runs/demo.toml"))
    assert "\n  distill   missing\n" in capsys.readouterr().out
    run = open_run(Path("runs/demo.toml"))
    assert [stage for _, stage in status.stages_of(run)] == list(names)
    # The command line.
    with pytest.raises(SystemExit):
        build_parser().parse_args(["distill", "--help"])
    printed = capsys.readouterr().out
    assert f"{names.index('distill') + 1}. Write nothing at all." in printed
    assert "--depth DEPTH" in printed
    assert "depth of the dummy" in printed
    assert build_parser().parse_args(["distill", "--depth", "4"]).depth == 4
    # Invoke and the documents.
    task = command_task(with_dummy)
    assert {argument.name for argument in task.get_arguments()} >= {"depth", "run", "round"}
    page = cli_reference.render()
    assert page.index("### `mine`") < page.index("### `distill`") < page.index("### `submit`")


def test_the_demo_runs_every_stage_that_needs_no_kaggle(
    with_dummy: Stage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = importlib.import_module("parity.pipeline.command_cores.demo")
    monkeypatch.chdir(root)
    planned = demo._stages(open_run(Path("runs/demo.toml")))
    rounds = [(stage.name, run.round) for run, stage in planned]
    learning = ("mine", "train", "eval")
    assert rounds[:7] == [
        ("prepare", 0),
        *((name, number) for number in (0, 1) for name in learning),
    ]
    assert sorted(rounds[7:]) == [
        (name, 1) for name in ("distill", "package", "predict", "reconcile", "rehearse")
    ]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda item: item.name)
def test_a_declared_function_takes_the_declared_options(command: Command) -> None:
    function = registry.import_function(command.function)
    options = {option.keyword: option.value_without for option in command.options}
    runs = () if command.run_file == "none" else (None,)
    overrides = {"overrides": ()} if command.run_file != "default" and command.has_overrides else {}
    inspect.signature(function).bind(*runs, **options, **overrides)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda item: item.name)
def test_every_option_is_explained_in_one_line(command: Command) -> None:
    assert command.summary.endswith(".")
    for option in command.all_options:
        assert option.help
        assert "\n" not in option.help
        assert option.flag == option.flag.lower()


def test_names_in_a_declaration_exist() -> None:
    config = {"data", "competition", "split", "prompt", "encoder", "mining", "training"}
    for stage in registry.stages():
        names = {*stage.needs, *dict(stage.reads), *stage.follows}
        assert {*names, *(stage.needs_without_validation or ())} <= set(ORDER)
        assert set(dict(stage.reads)) <= set(stage.needs)
        assert set(stage.config) <= config | {"scoring", "shipping", "forecast"}
        sections = get_type_hints(Config)
        for key in stage.unused:
            section, _, name = key.partition(".")
            assert name in sections[section].model_fields
        for dotted in filter(None, (stage.changed_inputs, stage.settings)):
            assert callable(registry.import_function(dotted))


def test_listing_stages_and_commands_does_not_import_their_code() -> None:
    code = f"""
import sys
from parity.pipeline import registry
assert len(registry.table()) > 20
loaded = [name for name in sys.modules if name.startswith("parity.")]
print(*sorted({{name.split(".")[1] for name in loaded}}), sep=",")
print(len(sys.modules), *[name for name in {HEAVY!r} if name in sys.modules])
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    rooms, modules = answer.stdout.splitlines()
    assert rooms == "pipeline,run"
    count, *heavy = modules.split()
    assert heavy == []
    assert int(count) < 400  # modules, not seconds: a busy machine does not change it


def string_lists(path: Path) -> Iterator[tuple[int, set[str]]]:
    """Yield line and texts of every tuple, list, set and dict literal of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            items: list[ast.expr | None] = [*node.elts]
        elif isinstance(node, ast.Dict):
            items = [*node.keys]
        else:
            continue
        yield (
            node.lineno,
            {
                item.value
                for item in items
                if isinstance(item, ast.Constant) and isinstance(item.value, str)
            },
        )


def test_stages_are_listed_in_the_registry_alone(root: Path) -> None:
    declared = importlib.import_module(registry.STAGES).__path__[0]
    files = [
        path
        for path in (*SOURCE.rglob("*.py"), root / "tasks.py", *root.glob("tools/*.py"))
        if not path.is_relative_to(declared)
    ]
    lists = {
        f"{path.name}:{line}": sorted(texts & set(ORDER))
        for path in files
        for line, texts in string_lists(path)
        if len(texts & set(ORDER)) > 2 and path.name not in EXCUSED
    }
    assert lists == {}


def test_the_page_of_commands_is_current(root: Path) -> None:
    page = (root / cli_reference.PAGE).read_text(encoding="utf-8")
    assert page == cli_reference.render()


LITERAL = re.compile(r"(?:run: (?!invoke)|\binvoke |\./inv |\bparity )(?P<verb>[a-z][a-z.-]+)")


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string of a file that is not a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


def test_no_message_spells_a_command_itself() -> None:
    names = {*registry.table(), "dev.lock"}
    literals = [
        f"{path.relative_to(SOURCE)}:{line}: {match[0]}"
        for path in SOURCE.rglob("*.py")
        for line, text in messages(path)
        for match in LITERAL.finditer(text)
        if match["verb"] in names
    ]
    assert literals == []


def test_a_fix_gets_run_file_overrides_and_round(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("runs/a.toml")
    complete = registry.complete_fix(("mine",), run_file=file, overrides=["x.y=1"], round_=2)
    assert complete == ("mine", "--run", "runs/a.toml", "--set=x.y=1", "--round", "2")
    flagged = registry.complete_fix(("eval", "--model", "base"), run_file=file)
    assert flagged == ("eval", "--run", "runs/a.toml", "--model", "base")


@pytest.mark.parametrize("verb", ["prepare", "report", "wheels"])
def test_a_fix_without_rounds_gets_none(verb: str) -> None:
    file = Path("runs/a.toml")
    assert registry.complete_fix((verb,), run_file=file, round_=2) == (verb, "--run", "runs/a.toml")
    words = (verb, "--run", "runs/a.toml", "--round", "2")
    assert registry.complete_fix(words, run_file=file) == words[:3]


def test_a_fix_that_names_its_run_is_complete() -> None:
    words = ("eval", "--run", "runs/b.toml", "--round", "1")
    assert registry.complete_fix(words, run_file=Path("a.toml"), overrides=["x.y=1"]) == words


def test_an_error_is_printed_with_the_complete_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRAM, "./inv")
    error = StaleInput("mine is stale.", fix=("eval", "--model", "last"))
    run = open_run(Path("runs/demo.toml"), ("mining.seed=1",), 2)
    command = "./inv eval --run runs/demo.toml --set=mining.seed=1 --round 2 --model last"
    assert registry.render_fix(error.fix, run) == command
    assert registry.render_fix(error.fix) == "./inv eval --model last"
    assert registry.describe_error(error, run) == f"mine is stale. Run: {command}"
    assert registry.describe_error(StaleInput("it has no fix."), run) == "it has no fix."


@pytest.mark.parametrize("words", [("image.lock", "--freeze", "f"), ("dev.lock",), ("demo",)])
def test_a_fix_without_a_run_file_gets_none(words: tuple[str, ...]) -> None:
    assert registry.complete_fix(words, run_file=Path("a.toml"), overrides=[]) == words


def test_tasks_are_made_of_the_same_table() -> None:
    names = {command.name for command in COMMANDS if not command.is_internal}
    listed = {
        *tasks.namespace.tasks,
        *("image" if name == "build" else f"image.{name}" for name in tasks.images.tasks),
    }
    assert listed == names
