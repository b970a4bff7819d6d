"""Every verb of the project; each starts one process: `python -m parity STAGE ...`.

Nothing is computed here, so `invoke --list` loads no model, and any environment with the lock does.
"""

import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

DEMO = "runs/demo.toml"
WORKERS = ("-n", "auto", "--maxprocesses", "4")  # of pytest; each loads torch
SETS = {"set_": "section.key=value over the run file; may be repeated"}
RUN = {"run": f"run file, one experiment (default: {DEMO})", **SETS}
ROUND = {"round_": "round r mines with the adapter of round r-1 (default: 0)", **RUN}
EVAL = {
    "adapter": "best, base or epoch-N (default: best)",
    "against": "another run file: is a difference shown?",
    "accept_polluted": "score rows it was trained on; kept out of every table",
}


def _start(c: Context, *words: str) -> None:
    """Start this Python as a person would; its exit code becomes ours."""
    print("$ python", shlex.join(words), file=sys.stderr, flush=True)
    watched = sys.stdout.isatty() and sys.stderr.isatty()  # then progress is a bar
    c.run(shlex.join([sys.executable, *words]), pty=watched, in_stream=False)


def _stage(c: Context, name: str, run: str, sets: Sequence[str], **flags: str | bool) -> None:
    """Start one stage of a run; an empty flag was not given."""
    words = [f"--set={value}" for value in sets]
    for flag, value in flags.items():
        words += [f"--{flag.replace('_', '-')}" + f"={value}" * (value is not True)] * bool(value)
    _start(c, "-m", "parity", name, *[run] * bool(run), *words)


def _task(name: str | None = None, **options: str) -> Callable[..., Any]:
    """Make a task whose options have help, and no one-letter names that clash."""
    repeated = {"set_"} & set(options)
    return task(name=name, help=options, iterable=repeated, auto_shortflags=False)


@task(default=True, auto_shortflags=False, help={"run": "run file; without one: all runs"})
def story(c: Context, run: str = "") -> None:
    """The stages in order, which are done, stale or missing, and the next command."""
    _stage(c, "story", run, ())


@_task(**RUN)
def prepare(c: Context, set_: list[str], run: str = DEMO) -> None:
    """1. Kaggle's files → queries, corpus, qrels, split, exemplars, probe."""
    _stage(c, "prepare", run, set_)


def _rounds(name: str, does: str) -> Callable[..., Any]:
    """Make the task of a stage that belongs to a round."""

    def start(c: Context, set_: list[str], run: str = DEMO, round_: str = "") -> None:
        _stage(c, name, run, set_, round=round_)

    start.__doc__ = does
    made: Callable[..., Any] = _task(name, **ROUND)(start)
    return made


@_task("mine", import_="negatives from this FlagEmbedding file; nothing is ranked", **ROUND)
def mine(c: Context, set_: list[str], run: str = DEMO, round_: str = "", import_: str = "") -> None:
    """2. Queries → ranking of the training rows → negatives."""
    _stage(c, "mine", run, set_, round=round_, **{"import": import_})


train = _rounds("train", "3. Negatives → an adapter for each epoch, scored, the best one chosen.")
predict = _rounds("predict", "5. Adapter → ranking of the test rows → submission.csv.")
package = _rounds("package", "6. Adapter → bundle, the flat folder that goes to Kaggle.")
rehearse = _rounds(
    "rehearse", "7. Bundle → the kernel's script run offline → evidence `rehearsal`."
)


@_task("eval", **EVAL, **ROUND)
def evaluate(
    c: Context,
    set_: list[str],
    run: str = DEMO,
    round_: str = "",
    adapter: str = "",
    against: str = "",
    accept_polluted: bool = False,
) -> None:
    """4. Adapter → MAP@25 and Recall@25 of all, seen, unseen → evidence `cv`."""
    flags = {"adapter": adapter, "against": against}
    _stage(c, "eval", run, set_, round=round_, accept_polluted=accept_polluted, **flags)


@_task(**RUN)
def report(c: Context, set_: list[str], run: str = DEMO) -> None:
    """Evidence → report.md, the table of all scores."""
    _stage(c, "report", run, set_)


@_task(data="folder with Kaggle's four files", quick="a few steps of everything", **SETS)
def demo(c: Context, set_: list[str], data: str = "", quick: bool = False) -> None:
    """The whole loop, two rounds, to a submission, its rehearsal and a report."""
    _stage(c, "demo", "", set_, data=data, quick=quick)


@_task(only="pytest's -k: part of a test's name")
def test(c: Context, only: str = "") -> None:
    """The fast tests: CPU, no network, no account."""
    _start(c, "-m", "pytest", "-q", *WORKERS, *["-k", only] * bool(only))


def _tool(name: str, does: str, *commands: str) -> Callable[..., Any]:
    """Make the task of fixed commands, one after the other."""

    def start(c: Context) -> None:
        for command in commands:
            _start(c, *shlex.split(command))

    start.__doc__ = does
    made: Callable[..., Any] = task(name=name, default=name == "check")(start)
    return made


FORMAT, LINT = "-m ruff format --check .", "-m ruff check ."
IMPORTS = "-c 'from importlinter.cli import lint_imports_command as run; run()'"
TESTS = shlex.join(["-m", "pytest", "-q", *WORKERS])
tools = (
    _tool("fmt", "Format, and mend what ruff can mend.", "-m ruff format .", f"{LINT} --fix"),
    _tool("lint", "Check format and style (ruff).", FORMAT, LINT),
    _tool("type", "Check types (mypy strict).", "-m mypy"),
    _tool("imports", "Check which room imports which, and who loads torch.", IMPORTS),
    _tool("test", "The fast tests.", TESTS),
    _tool(
        "check",
        "lint, type, imports and test; rewrites nothing.",
        FORMAT,
        LINT,
        "-m mypy",
        IMPORTS,
        TESTS,
    ),
    _tool("slow", "The tests that take minutes.", "-m pytest -q -m slow"),
    _tool(
        "lock", "requirements.in, under the image's freeze → requirements.lock.", "tools/lock.py"
    ),
)
loop = (prepare, mine, train, evaluate, predict, package, rehearse)
namespace = Collection(story, *loop, report, demo, test, dev=Collection(*tools))
