"""`python -m parity STAGE RUN [--round N] [--set section.key=value ...]`: start one stage."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from parity.run.errors import ParityError

_DEMO = "runs/demo.toml"
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
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # bm25s imports jax where there is one, which would take most of a GPU's memory for itself.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # It looks for kernels on a hub, finds none, and says so at every start.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        _start(asked)
    except ParityError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="parity", description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name in ("prepare", "mine", "train", "eval", "predict", "package", "rehearse", "report"):
        stage = stages.add_parser(name, allow_abbrev=False)
        stage.add_argument("run", nargs="?", default=_DEMO, type=Path)
        _common(stage)
    stages.choices["mine"].add_argument("--import", dest="imported", type=Path)
    score = stages.choices["eval"]
    score.add_argument("--adapter", default="best")
    score.add_argument("--against", type=Path)
    score.add_argument("--accept-polluted", action="store_true")
    reload = stages.add_parser("reload", allow_abbrev=False)
    reload.add_argument("run", type=Path)
    reload.add_argument("--out", required=True, type=Path)
    _common(reload)
    story = stages.add_parser("story", allow_abbrev=False)
    story.add_argument("run", nargs="?", type=Path)
    story.add_argument("--set", dest="overrides", action="append", default=[])
    demo = stages.add_parser("demo", allow_abbrev=False)
    demo.add_argument("--data", type=Path)
    demo.add_argument("--quick", action="store_true")
    demo.add_argument("--set", dest="overrides", action="append", default=[])
    return parser


def _common(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("--round", type=int, default=0)
    stage.add_argument("--set", dest="overrides", action="append", default=[])


def _start(asked: argparse.Namespace) -> None:
    """Import the one stage that is asked for, and start it."""
    # Imported here: each stage costs what it needs, and `--help` costs nothing.
    from parity.stages import start  # noqa: PLC0415

    start.start(asked)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
