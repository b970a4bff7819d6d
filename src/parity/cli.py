"""The command line: `parity COMMAND`, `python -m parity COMMAND` and `./inv COMMAND`.

One table lists every command: `pipeline/registry.py`.
"""

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from parity.pipeline import registry
from parity.pipeline.declaration import Command, Option
from parity.run.command_line import PROGRAM, join_command
from parity.run.errors import ParityError

_INTERRUPTED, _CLOSED = 130, 141  # what a shell returns for Ctrl-C and for a closed pipe


def console() -> NoReturn:
    """Run the console script `parity`."""
    os.environ.setdefault(PROGRAM, "parity")
    raise SystemExit(main(sys.argv[1:]))


def main(words: Sequence[str]) -> int:
    """Run the command line; return its exit code."""
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader ended first, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    parser = argparse.ArgumentParser(
        prog="parity",
        description="Fine-tune a retriever for Kaggle and know why LB differs from CV.",
    )
    parser.add_argument("--version", action=_Version, help="print version, commit and lock digest")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in registry.table().values():
        summary = registry.summary_of(command)
        listed: dict[str, Any] = {"help": summary.replace("%", "%%")}
        subparser = commands.add_parser(
            command.name,
            allow_abbrev=False,
            description=summary,
            **({} if command.is_internal else listed),
        )
        _add_options(subparser, command)
    return parser


def version_text() -> str:
    """Return the version, the git commit and the digest of requirements.lock."""
    # Imported here: `--help` needs neither.
    from parity import __version__  # noqa: PLC0415
    from parity.run import resources  # noqa: PLC0415

    parts = [f"parity {__version__}"]
    for name, value in resources.describe_build().items():
        parts += [f"{name} {value[:12]}"] * bool(value)
    return ", ".join(parts)


class _Version(argparse.Action):
    """Print the version; git is asked only then."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, default=argparse.SUPPRESS, **{**options, "dest": "version"})

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(version_text())
        parser.exit()


def _run(words: Sequence[str]) -> int:
    arguments = build_parser().parse_args(words)
    _set_environment()
    has_json = bool(getattr(arguments, "json", False))  # then text for people goes to stderr
    try:
        with contextlib.redirect_stdout(sys.stderr if has_json else sys.stdout):
            result = _start(arguments, list(words))
    except ParityError as error:
        return _report(error, arguments, has_json=has_json)
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to continue", file=sys.stderr)
        return _INTERRUPTED
    if has_json:
        print(json.dumps(result, sort_keys=True))
    return 0


def _report(error: ParityError, arguments: argparse.Namespace, *, has_json: bool) -> int:
    """Print an error with the command that fixes it; return its exit code."""
    line = " ".join(str(error).split())
    record = {"class": type(error).__name__, "exit_code": error.exit_code}
    if error.fix:
        record["fix"] = join_command(_complete(error.fix, arguments))
        line = f"{line.removesuffix('.')}. Run: `{record['fix']}`"
    print("error:", line, file=sys.stderr)
    if has_json:
        record["error"] = line
        for note in getattr(error, "__notes__", ()):  # further results, as JSON
            record |= json.loads(note)
        print(json.dumps(record, sort_keys=True))
    return error.exit_code


def _complete(fix: tuple[str, ...], arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the words of a fix with the run file, overrides and round of the failed command."""
    command = registry.table()[arguments.command]
    run_file = getattr(arguments, "run", None)
    if run_file is None or registry.works_on_all_runs(command, arguments):
        return registry.complete_fix(fix)
    return registry.complete_fix(
        fix,
        run_file=Path(run_file),
        overrides=getattr(arguments, "overrides", ()),
        round_=getattr(arguments, "round", 0),
    )


def _set_environment() -> None:
    """Set what libraries read once, before any of them is imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # after a fork, too
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # bm25s imports jax where it is installed, which would take most of a GPU's memory.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # bitsandbytes looks for kernels on a hub and logs at every start that it found nothing.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _start(arguments: argparse.Namespace, words: list[str]) -> object:
    """Import the chosen command and run it; return what `--json` prints."""
    # Imported here: each command costs what it needs, and `--help` costs nothing.
    from parity.pipeline import dispatch  # noqa: PLC0415

    return dispatch.start(registry.table()[arguments.command], arguments, words)


def _add_options(parser: argparse.ArgumentParser, command: Command) -> None:
    groups: dict[str, argparse._MutuallyExclusiveGroup] = {}
    has_positional = any(option.is_positional for option in command.options)
    for option in command.all_options:
        if option.group and option.group not in groups:
            groups[option.group] = parser.add_mutually_exclusive_group()
        if option.flag == "--run" and not has_positional:
            _add_run(parser.add_mutually_exclusive_group(), option)
        else:
            _add_option(groups.get(option.group, parser), option)


def _add_run(parser: argparse._MutuallyExclusiveGroup, option: Option) -> None:
    """Add the run file, which may also be given without its flag."""
    parser.add_argument(
        "run",
        nargs="?",
        default=argparse.SUPPRESS,  # a `type` would convert it too
        metavar="FILE",
        help="run file, the same as --run FILE",
    )
    _add_option(parser, option)


def _add_option(parser: argparse._ActionsContainer, option: Option) -> None:
    settings: dict[str, Any] = {
        "help": option.help.replace("%", "%%"),
        "default": option.value_without,
    }
    if option.is_switch:
        settings |= {"action": "store_const", "const": option.on}
    else:
        settings |= {"type": option.type, "choices": option.choices or None}
    if option.is_repeated:
        settings["action"] = "append"
    if option.is_positional:
        nargs = "*" if option.names else None if option.is_required else "?"
        parser.add_argument(option.keyword, nargs=nargs, **settings)
        return
    if not option.is_switch and not option.choices:
        settings["metavar"] = option.value_name
    parser.add_argument(option.flag, dest=option.keyword, required=option.is_required, **settings)
