"""Run the kernel's script as Kaggle would: in a folder laid out like /kaggle, and kept apart."""

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
    """A kernel that ran to its end.

    Attributes:
        output: what it wrote to standard output.
        seconds: wall time, everything included.
        isolation: how it was kept apart.
    """

    output: str
    seconds: float
    isolation: str


def lay_out(root: Path, attached: Mapping[str, Mapping[str, Path]], layout: Layout) -> None:
    """Make `root/input/PLACE/FILE` for all that is attached, and an empty `root/working`.

    Files are linked where the disk can, so that base weights are not copied.

    Args:
        root: stands for /kaggle; replaced.
        attached: name on Kaggle → file name → where the file lies.
        layout: where Kaggle mounts a name.
    """
    shutil.rmtree(root, ignore_errors=True)
    (root / "working").mkdir(parents=True)
    for name, contents in attached.items():
        folder = root / "input" / layout(name)
        folder.mkdir(parents=True)
        for file, source in contents.items():
            files.link(source, folder / file)


def run(root: Path, isolation: Sandbox, hours: float) -> RehearsalRun:
    """Run a kernel that was laid out in `root` to its end, passing on its progress.

    Args:
        root: what `lay_out` made.
        isolation: what it is started in.
        hours: the competition's limit, after which it is ended here as there.

    Raises:
        Mismatch: the kernel failed, or ran out of time; gives its last line.
    """
    started = time.monotonic()
    ended = subprocesses.run_with_progress(
        isolation.words, env=isolation.env, cwd=root / "working", seconds=hours * 3600
    )
    if ended.code:
        last = ended.last.removeprefix("error: ")
        raise Mismatch(f"the kernel failed with exit code {ended.code}: {last}")
    return RehearsalRun(ended.output, time.monotonic() - started, isolation.name)
