"""Invoke tasks: every command of `parity`, and the groups `image` and `dev`."""

import shlex

from invoke.collection import Collection

from parity.pipeline import registry
from parity.pipeline.checkout_tools import PYTEST
from tools.invoke_tasks import command_task, list_in_order, tool_task

DEFAULT = "status"
FORMAT, LINT = "-m ruff format --check .", "-m ruff check ."
IMPORTS = "-c 'from importlinter.cli import lint_imports_command as run; run()'"
TESTS = shlex.join(PYTEST)

tools = (
    tool_task("fmt", "Format the code and fix what ruff can.", "-m ruff format .", f"{LINT} --fix"),
    tool_task("lint", "Check format and style (ruff).", FORMAT, LINT),
    tool_task("type", "Check types (mypy strict).", "-m mypy"),
    tool_task("imports", "Check which room imports which, and what loads torch.", IMPORTS),
    tool_task("test", "Run the fast tests.", TESTS),
    tool_task(
        "check",
        "Run lint, type, imports and test; rewrite nothing.",
        FORMAT,
        LINT,
        "-m mypy",
        IMPORTS,
        TESTS,
        is_default=True,
    ),
    tool_task(
        "faults", "Test every fault of Kaggle's API, by name.", f"{TESTS} -m 'faults and not slow'"
    ),
    tool_task(
        "pitfalls", "Write the table of known CV/LB pitfalls and results.", "tests/fault_table.py"
    ),
    tool_task("slow", "Run the tests that take minutes.", "-m pytest -q -m slow"),
    tool_task("kaggle-standin", "Start our stand-in for Kaggle.", "tests/kagglestandin_server.py"),
    tool_task("lock", "Lock requirements.in under the image's freeze.", "tools/lock.py"),
    tool_task("docs", "Write docs/cli.md from the commands.", "tools/cli_reference.py"),
)
commands = [command for command in registry.table().values() if not command.is_internal]
images = Collection("image")
for command in commands:
    if command.name.startswith("image."):
        images.add_task(command_task(command))
    if command.name == "image":
        images.add_task(command_task(command), name="build", default=True)
namespace = Collection(
    *(
        command_task(command, is_default=command.name == DEFAULT)
        for command in commands
        if command.name.partition(".")[0] != "image"
    ),
    image=images,
    dev=Collection(*tools),
)
list_in_order()
