"""A child process runs to its end; at its time limit it is killed with its own children."""

import os
import sys
import time
from pathlib import Path

from parity.run.subprocesses import TIMED_OUT, run_with_progress

ENV = {"PATH": os.environ["PATH"]}


def test_a_limit_does_not_change_a_child_that_ends_in_time() -> None:
    words = [sys.executable, "-c", "import sys; print('out'); sys.exit('why')"]
    assert run_with_progress(words, env=ENV) == run_with_progress(words, env=ENV, seconds=60)
    assert run_with_progress(words, env=ENV, seconds=60).last == "why"


def test_a_child_over_its_limit_is_killed_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    grandchild = f"import time; time.sleep(3); open({str(mark)!r}, 'w')"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    start = time.monotonic()
    result = run_with_progress([sys.executable, "-c", code], env=ENV, seconds=1)
    assert (result.code, result.last) == (TIMED_OUT, "it exceeded the limit of 1 s")
    assert time.monotonic() - start < 2.9
    time.sleep(2.5)
    assert not mark.exists()
