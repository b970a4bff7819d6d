"""Run commands of the program in a test, in this process or in one of its own."""

import subprocess
import sys
from collections.abc import Sequence

import pytest

from parity.cli import main
from parity.run import errors

CODES = {
    errors.ParityError: 1,
    errors.BadConfig: 2,
    errors.BadData: 3,
    errors.StaleInput: 4,
    errors.Contaminated: 5,
    errors.Mismatch: 6,
    errors.KaggleRejected: 7,
    errors.OutcomeUnknown: 8,
    errors.RunFailed: 9,
    errors.ResultsDiffer: 10,
    errors.NotFinite: 11,
}
USAGE = 2  # what argparse returns, as for a wrong setting


def process(words: Sequence[str], *, code: str = "", **options: int) -> "subprocess.Popen[str]":
    start = ["-c", code] if code else ["-m", "parity"]
    return subprocess.Popen(
        [sys.executable, *start, *words],
        stdout=options.get("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
    )


def failure(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return exit code and the one line of a command that fails."""
    code = main(words)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    return code, err.removeprefix("error: ").rstrip("\n")


def usage(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == USAGE
    return capsys.readouterr().err.splitlines()[-1]
