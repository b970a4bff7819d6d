"""A child is watched to its end, and one that takes too long is ended with all it started."""

import os
import sys
import time
from pathlib import Path

from parity.run.subprocesses import TIMED_OUT, run_with_progress

ENV = {"PATH": os.environ["PATH"]}


def test_a_child_that_ends_in_time_is_as_without_a_limit() -> None:
    words = [sys.executable, "-c", "import sys; print('out'); sys.exit('why')"]
    assert run_with_progress(words, env=ENV) == run_with_progress(words, env=ENV, seconds=60)
    assert run_with_progress(words, env=ENV, seconds=60).last == "why"


def test_a_child_that_takes_too_long_is_ended_with_its_own_children(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    grandchild = f"import time; time.sleep(3); open({str(mark)!r}, 'w')"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    begun = time.monotonic()
    ended = run_with_progress([sys.executable, "-c", code], env=ENV, seconds=1)
    assert (ended.code, ended.last) == (TIMED_OUT, "it had not ended after 1 s")
    assert time.monotonic() - begun < 2.9
    time.sleep(2.5)
    assert not mark.exists()
