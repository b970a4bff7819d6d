"""`python -m parity STAGE RUN [--round N] [--set section.key=value ...]`: start one stage."""

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from parity.run.errors import ParityError

_DEMO = "runs/demo.toml"
_HERE = ("prepare", "mine", "train", "eval", "predict", "package", "rehearse", "report")
_REMOTE = ("publish", "push", "follow", "submit")
_TOOLS = ("image", "wheels", "plan", "doctor", "forecast")
_INSIDE = ("prepare", "mine", "train", "eval", "predict", "rehearse")
"""Stages that can run inside the built image."""
_FORMS = ("script", "notebook")
_INTERRUPTED, _CLOSED = 130, 141  # what a shell returns for Ctrl-C and for a closed pipe


def main(words: Sequence[str]) -> int:
    """Run the command line; return its exit code."""
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED


def _run(words: Sequence[str]) -> int:
    asked = _parser().parse_args(words)
    # Quiet before anything is imported that reads them once.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # after a fork, too
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # bm25s imports jax where there is one, which would take most of a GPU's memory for itself.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # It looks for kernels on a hub, finds none, and says so at every start.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    machine = bool(getattr(asked, "json", False))  # then a person's lines go beside it
    try:
        with contextlib.redirect_stdout(sys.stderr if machine else sys.stdout):
            result = _start(asked, list(words))
    except ParityError as error:
        line = " ".join(str(error).split())
        print("error:", line, file=sys.stderr)
        if machine:
            told = {"error": line, "class": type(error).__name__, "exit_code": error.exit_code}
            for note in getattr(error, "__notes__", ()):  # what was found beside it
                told |= json.loads(note)
            print(json.dumps(told, sort_keys=True))
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return _INTERRUPTED
    if machine:
        print(json.dumps(result, sort_keys=True))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="parity", description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name in (*_HERE, *_REMOTE, *_TOOLS):
        stage = stages.add_parser(name, allow_abbrev=False)
        stage.add_argument("run", nargs="?", default=_DEMO, type=Path)
        _common(stage)
    lock = stages.add_parser("image.lock", allow_abbrev=False)
    lock.add_argument("--freeze", type=Path, required=True)
    lock.add_argument("--git-commit", default="")
    lock.add_argument("--build-date", default="")
    _flags(stages.choices)
    stages.choices["mine"].add_argument("--import", dest="imported", type=Path)
    score = stages.choices["eval"]
    score.add_argument("--adapter", default="best")
    score.add_argument("--against", type=Path)
    score.add_argument("--accept-contaminated", action="store_true")
    _ahead(stages.choices["forecast"], stages.add_parser("advise", allow_abbrev=False))
    reload = stages.add_parser("reload", allow_abbrev=False)
    reload.add_argument("run", type=Path)
    reload.add_argument("--out", required=True, type=Path)
    _common(reload)
    _sides(stages.add_parser("reconcile", allow_abbrev=False))
    story = stages.add_parser("story", allow_abbrev=False)
    story.add_argument("run", nargs="?", type=Path)
    story.add_argument("--set", dest="overrides", action="append", default=[])
    demo = stages.add_parser("demo", allow_abbrev=False)
    demo.add_argument("--data", type=Path)
    demo.add_argument("--quick", action="store_true")
    demo.add_argument("--set", dest="overrides", action="append", default=[])
    return parser


def _flags(stages: Mapping[str, argparse.ArgumentParser]) -> None:
    """Add what the way to Kaggle needs."""
    for name in _INSIDE:
        stages[name].add_argument("--where", choices=("here", "image"), default="here")
    for name in (*_REMOTE, "plan", "doctor", "forecast"):
        stages[name].add_argument("--json", action="store_true")
    for name in ("publish", "push", "submit"):
        stages[name].add_argument("--dry-run", action="store_true")
    stages["rehearse"].add_argument("--image", action="store_true")
    stages["publish"].add_argument("--base", action="store_true")
    stages["push"].add_argument("--as", dest="form", choices=_FORMS, default=_FORMS[0])
    stages["push"].add_argument("--accept-risk", action="store_true")
    stages["follow"].add_argument("--minutes", type=_at_least(0.0), default=0.0)
    stages["plan"].add_argument("--device", default="")
    stages["plan"].add_argument("--queries", type=_at_least(0), default=0)
    stages["doctor"].add_argument("--online", action="store_true")
    stages["image"].add_argument("--base", default="")
    stages["report"].add_argument("--with-text", action="store_true")


def _sides(compared: argparse.ArgumentParser) -> None:
    """Add what names two records of evidence."""
    compared.add_argument("sides", nargs="*", metavar="SIDE")
    compared.add_argument("--run", default=_DEMO, type=Path)
    either = compared.add_mutually_exclusive_group()
    either.add_argument("--import", dest="imported", type=Path)
    either.add_argument("--attribute", action="store_true")
    compared.add_argument("--with-text", action="store_true")
    compared.add_argument("--json", action="store_true")
    _common(compared)


def _ahead(forecast: argparse.ArgumentParser, advise: argparse.ArgumentParser) -> None:
    """Add what is forecast, or what past forecasts were worth; and what advice is taken from."""
    advise.add_argument("log", nargs="?", type=Path)
    advise.add_argument("--json", action="store_true")
    forecast.add_argument("--adapter", default="best")
    forecast.add_argument("--golden", action="store_true")
    forecast.add_argument("--judge", action="store_true")


def _at_least(least: float) -> Callable[[str], float]:
    """Return what reads a number of the kind of `least`, and refuses a smaller one."""

    def number(text: str) -> float:
        value = type(least)(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text}: want {least} or more")
        return value

    return number


def _common(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("--round", type=int, default=0)
    stage.add_argument("--set", dest="overrides", action="append", default=[])


def _start(asked: argparse.Namespace, words: list[str]) -> object:
    """Import the one stage that is asked for, and start it; return what a machine is told."""
    # Imported here: each stage costs what it needs, and `--help` costs nothing.
    from parity.pipeline import dispatch  # noqa: PLC0415

    return dispatch.start(asked, words)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
