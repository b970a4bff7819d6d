"""A log in a pipe has few, complete lines and no control characters."""

import subprocess
import sys

import pytest

from parity.run.progress import log, progress

WORK = """\
import time
from parity.run import progress as subject
subject._LINE_SECONDS = {seconds}
with subject.progress("train", 24, "step", done=4) as bar:
    for _ in range(20):
        time.sleep({pause})
        bar.update(1)
        bar.set_postfix_str("loss 0.123", refresh=False)
        if bar.n == 20:
            with subject.progress("embed", 10) as inner:
                for _ in range(10):
                    time.sleep({pause})
                    inner.update(1)
print("done")
"""


def log_of(*, seconds: float, pause: float) -> str:
    """Return the log of long work in a pipe with a line every `seconds`."""
    result = subprocess.run(
        [sys.executable, "-c", WORK.format(seconds=seconds, pause=pause)],
        capture_output=True,
        check=True,
    )
    assert result.stdout == b"done\n"
    return result.stderr.decode("ascii")


def test_a_pipe_gets_few_complete_lines_without_escape_codes() -> None:
    log = log_of(seconds=0.5, pause=0.13)
    lines = log.split("\n")
    assert 2 <= len(lines) - 1 <= 8
    assert lines[-1] == ""
    assert not set("\r\x1b\b\t") & set(log)
    assert all(len(line) <= 78 for line in lines)
    assert lines[0].startswith("train: ")
    assert "/24 [" in lines[0]
    assert any(line.startswith("embed: ") for line in lines)
    assert not [line for line in lines[:-1] if not line.strip()]


def test_short_work_logs_nothing() -> None:
    assert log_of(seconds=15.0, pause=0.04) == ""


def test_the_total_may_change() -> None:
    with progress("train", 100, "step", 3) as bar:
        bar.reset(total=50)
        bar.update(3)
        assert (bar.n, bar.total) == (3, 50)


def test_an_error_inside_is_raised() -> None:
    with pytest.raises(KeyError), progress("train", 3):
        raise KeyError


def test_only_the_first_process_logs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log("first")
    monkeypatch.setenv("RANK", "1")
    log("second")
    assert capsys.readouterr() == ("", "first\n")
