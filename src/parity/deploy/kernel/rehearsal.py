"""Rehearsal of the kernel's script: in a folder laid out like /kaggle, and isolated."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parity.deploy.kernel.mounts import Layout
from parity.deploy.kernel.sandbox import Sandbox
from parity.run import files, subprocesses
from parity.run.errors import Mismatch


@dataclass(frozen=True, slots=True)
class RehearsalRun:
    """A finished kernel run.

    Attributes:
        output: standard output.
        seconds: wall time.
        isolation: name of the sandbox.
    """

    output: str
    seconds: float
    isolation: str


def lay_out(root: Path, attached: Mapping[str, Mapping[str, Path]], layout: Layout) -> None:
    """Create `root/input/FOLDER/FILE` for each attached file, and an empty `root/working`.

    Files are hard-linked if possible, so that base weights are not copied.

    Args:
        root: folder that replaces /kaggle; overwritten.
        attached: local path by file name by name on Kaggle.
        layout: mount layout.
    """
    shutil.rmtree(root, ignore_errors=True)
    (root / "working").mkdir(parents=True)
    for name, contents in attached.items():
        folder = root / "input" / layout(name)
        folder.mkdir(parents=True)
        for file, source in contents.items():
            files.link(source, folder / file)


def run(root: Path, isolation: Sandbox, hours: float) -> RehearsalRun:
    """Run the kernel in `root` to its end and show its progress.

    Args:
        root: folder that `lay_out` created.
        isolation: sandbox to start the kernel in.
        hours: time limit of the competition; the kernel is stopped after it.

    Raises:
        Mismatch: the kernel failed or ran out of time; the message has its last line.
    """
    started = time.monotonic()
    result = subprocesses.run_with_progress(
        isolation.words, env=isolation.env, cwd=root / "working", seconds=hours * 3600
    )
    if result.code:
        last = result.last.removeprefix("error: ")
        raise Mismatch(f"the kernel failed with exit code {result.code}: {last}")
    return RehearsalRun(result.output, time.monotonic() - started, isolation.name)
