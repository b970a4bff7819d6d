"""Every verb of the project; each starts one process: `python -m parity STAGE ...`.

Nothing is computed here, so `invoke --list` loads no model, and any environment with the lock does.
"""

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

from tools.verbs import DEMO, Help, Sided, launch, verb, words

WORKERS = (
    "-n",
    "auto",
    "--maxprocesses",
    "4",
    "--dist",
    "loadgroup",
)  # of pytest; each loads torch
SETS: Help = {"set_": "section.key=value over the run file; may be repeated"}
RUN: Help = {**SETS, "run": f"run file, one experiment (default: {DEMO})"}
ROUND: Help = {**RUN, "round_": "round r mines with the adapter of round r-1 (default: 0)"}
WHERE: Help = {"where": "here, or image: in the built one (default: here)"}
JSON: Help = {"json": "tell a machine: one JSON object on standard output"}
DRY: Help = {"dry_run": "print every call it would make; change nothing", **JSON}
story = verb(
    "story",
    "The stages in order, which are done, stale or missing, and the next command.",
    {"run": "run file; without one: all runs"},
    run="",
)
prepare = verb(
    "prepare",
    "1. Kaggle's files → queries, corpus, qrels, split, few-shot examples, probe.",
    WHERE,
    RUN,
)
mine = verb(
    "mine",
    "2. Queries → ranking of the training rows → negatives.",
    {"import_": "negatives from this FlagEmbedding file; nothing is ranked"},
    WHERE,
    ROUND,
)
train = verb(
    "train", "3. Negatives → an adapter for each epoch, scored, the best one chosen.", WHERE, ROUND
)
evaluate = verb(
    "eval",
    "4. Adapter → MAP@25 and Recall@25 of all, seen, unseen → evidence `cv`.",
    {
        "adapter": "best, base or epoch-N (default: best)",
        "against": "another run file: is a difference shown?",
        "accept_contaminated": "score rows it was trained on; kept out of every table",
    },
    WHERE,
    ROUND,
)
predict = verb("predict", "5. Adapter → ranking of the test rows → submission.csv.", WHERE, ROUND)
package = verb("package", "6. Adapter → bundle and wheelhouse, what goes to Kaggle.", ROUND)
rehearse = verb(
    "rehearse",
    "7. Bundle → the kernel's script run offline, twice → evidence `rehearsal`.",
    {"image": "in the built image; equal to rounding, not to the byte"},
    WHERE,
    ROUND,
    switches="image",
)
publish = verb(
    "publish",
    "8. Bundle and wheelhouse → private Kaggle datasets, sent only when new.",
    {"base": "the base weights alone, once"},
    DRY,
    ROUND,
    switches="base",
)
push = verb(
    "push",
    "9. The kernel → Kaggle, pinned to image and datasets; starts its run.",
    {
        "as_": "script or notebook (default: script)",
        "accept_risk": "push even what the plan says cannot fit; recorded",
    },
    DRY,
    ROUND,
)
follow = verb(
    "follow",
    "10. The kernel's run → its output, checked → evidence `kernel`; then its scores.",
    {"minutes": "the longest wait (default: the competition's limit and an hour)"},
    JSON,
    ROUND,
)
submit = verb(
    "submit", "11. The kernel's checked version → one submission to the competition.", DRY, ROUND
)


@task(
    klass=Sided,
    positional=["a", "b"],
    help={
        "a": "an id of the ledger, RUN/round-N/STAGE, a run_report.json, or a log's .csv alone",
        "b": "the same, or a score such as 0.304; without sides: the run's CV and its last step",
        "import_": "add the evidence of this run_report.json to the ledger",
        "with_text": "show where texts differ; they are the competition's",
        "attribute": "each layer's part of the gap, by swapping one after the other",
        **JSON,
        **ROUND,
    },
    iterable=["set_"],
    auto_shortflags=False,
)
def reconcile(
    c: Context,
    a: str,
    b: str,
    import_: str = "",
    with_text: bool = False,
    attribute: bool = False,
    json: bool = False,
    run: str = DEMO,
    round_: str = "",
    set_: Sequence[str] | None = None,
) -> None:
    """12. Two records of evidence → the first layer that differs, or that none does."""
    flags: dict[str, str | bool] = {"import_": import_, "with_text": with_text, "run": run}
    flags |= {"attribute": attribute, "json": json, "round_": round_}
    launch(c, *words("reconcile", "", set_ or (), flags), *filter(None, (a, b)))


report = verb(
    "report",
    "Evidence → report.html and report.md: story, scores, what differs, forecasts.",
    {"with_text": "let the HTML show the competition's text; not to be shared"},
    RUN,
    switches="with_text",
)
demo = verb(
    "demo",
    "The whole loop, two rounds, to a submission, its rehearsal and a report.",
    {"data": "folder with Kaggle's four files", "quick": "a few steps of everything"},
    SETS,
)
plan = verb(
    "plan",
    "Time and memory of the kernel on Kaggle's machine; or, with --device here, of this one.",
    {"device": "here, cpu, t4x2, l4x1, l4x4, a100 or h100", "queries": "rows of the hidden test"},
    JSON,
    ROUND,
)
forecast = verb(
    "forecast",
    "A run's CV → the interval of its leaderboard score, written down before there is one.",
    {
        "adapter": "best, base or epoch-N (default: best)",
        "judge": "past forecasts against the scores that arrived",
        "golden": "the backtest on the golden log, one training left out",
    },
    JSON,
    ROUND,
    switches="judge golden",
)


@task(
    klass=Sided,
    positional=["log"],
    help={"log": "a table of runs instead of the ledger, such as the golden log's .csv", **JSON},
    auto_shortflags=False,
)
def advise(c: Context, log: str, json: bool = False) -> None:
    """Earlier scores → which split and epoch to trust, and what so many rows cannot tell apart."""
    launch(c, *words("advise", log, (), {"json": json}))


doctor = verb(
    "doctor",
    "What is wrong with this machine, and the command that mends it.",
    {"online": "ask Kaggle too: login, rules, quota"},
    JSON,
    RUN,
)
wheels = verb("wheels", "The wheels the image lacks: resolved, locked, fetched, proven.", RUN)
build = verb(
    "image",
    "Build the Dockerfile on Kaggle's image with docker, podman or buildah.",
    {"base": "another base image, such as a stand-in"},
    RUN,
)
image_lock = verb(
    "image.lock",
    "Put a real freeze into kaggle/image.lock and show what it changes.",
    {
        "freeze": "what `pip freeze` printed in Kaggle's image",
        "git_commit": "its /etc/git_commit",
        "build_date": "its /etc/build_date",
    },
)


@task(help={"only": "pytest's -k: part of a test's name"}, auto_shortflags=False)
def test(c: Context, only: str = "") -> None:
    """The fast tests: CPU, no network, no account."""
    launch(c, "-m", "pytest", "-q", *WORKERS, *["-k", only] * bool(only))


@task(
    help={"work": "encode or train", "device": "cpu or cuda", "options": "more flags, in one text"},
    auto_shortflags=False,
)
def bench(c: Context, work: str, device: str = "cpu", options: str = "") -> None:
    """We and the peers side by side in one run: equality first, then the ratios."""
    launch(c, "-m", "benchmarks", work, f"--device={device}", *shlex.split(options))


def _tool(name: str, does: str, *commands: str) -> Callable[..., Any]:
    """Make the task of fixed commands, one after the other."""

    def start(c: Context) -> None:
        for command in commands:
            launch(c, *shlex.split(command))

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
    _tool(
        "faults", "Every fault on the way to Kaggle, by name.", f"{TESTS} -m 'faults and not slow'"
    ),
    _tool("pitfalls", "What made CV and LB disagree, planted → verdict.", "tests/fault_table.py"),
    _tool("slow", "The tests that take minutes.", "-m pytest -q -m slow"),
    _tool("kaggle-standin", "Our stand-in for Kaggle, by hand.", "tests/kagglestandin_server.py"),
    _tool(
        "lock", "requirements.in, under the image's freeze → requirements.lock.", "tools/lock.py"
    ),
)
there = (publish, push, follow, submit, reconcile)
images = Collection("image", lock=image_lock)
images.add_task(build, name="build", default=True)
namespace = Collection(
    *(story, prepare, mine, train, evaluate, predict, package, rehearse),
    *(*there, report, demo, test, plan, bench, forecast, advise, doctor, wheels),
    image=images,
    dev=Collection(*tools),
)
