"""Run the kernel's script as Kaggle would: in a folder laid out like /kaggle, and offline."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from parity.run import files, process
from parity.run.errors import Mismatch

# Any attempt to reach the network ends the kernel: Kaggle scores it without internet.
# Ended there and then, for an exception could be caught, or die with a thread of its own.
# The project itself is taken from its wheel, never from this checkout.
_GUARD = """\
import os, runpy, sys
sent, asked = ("connect", "sendto", "sendmsg"), ("getaddrinfo", "gethostbyname", "gethostbyaddr")
places = {f"socket.{name}": 1 for name in sent} | {f"socket.{name}": 0 for name in asked}
def offline(event, args):
    if event in places:
        address = args[places[event]]
        if places[event] and (address is None or isinstance(address, (str, bytes))):
            return  # a Unix socket
        sys.stdout.flush()
        os.write(2, f"the kernel tried to reach the network: {event} {address!r}\\n".encode())
        os._exit(1)
sys.addaudithook(offline)
sys.path[:] = [one for one in sys.path if not os.path.isfile(f"{one}/parity/__init__.py")]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
_KEPT = (
    *("PATH", "LANG", "LC_ALL", "TMPDIR"),
    *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "JAX_PLATFORMS"),
    *("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"),
)


def lay_out(root: Path, datasets: Mapping[str, Mapping[str, Path]]) -> None:
    """Make `root/input/NAME/FILE` for every dataset, and an empty `root/working`.

    Files are linked where the disk can, so that base weights are not copied.

    Args:
        root: stands for /kaggle; replaced.
        datasets: dataset name → file name → where the file lies.
    """
    shutil.rmtree(root, ignore_errors=True)
    (root / "working").mkdir(parents=True)
    for name, contents in datasets.items():
        folder = root / "input" / name
        folder.mkdir(parents=True)
        for file, source in contents.items():
            files.link(source, folder / file)


def run(kernel: Path, root: Path) -> str:
    """Run the kernel's script in a fresh, isolated, offline process; return what it printed.

    Python's isolated mode ignores PYTHON* variables and the user's packages, and its home is
    `root`, where no key and no downloaded model lies; an audit hook, and where the machine allows
    it a network namespace of its own, keep it off the network.

    Raises:
        Mismatch: the kernel failed; gives its last line.
    """
    place = str(root.resolve())
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    ended = process.watched(
        [*_namespace(), sys.executable, "-I", "-c", _GUARD, str(kernel.resolve())],
        env={**kept, "HOME": place, "PARITY_KAGGLE": place, "HF_HUB_OFFLINE": "1"},
        cwd=root / "working",
    )
    if ended.code:
        raise Mismatch(f"the kernel failed with exit code {ended.code}: {ended.last}")
    return ended.output


def _namespace() -> list[str]:
    """Return the words that start a process without any network, empty where that is refused."""
    words = ["unshare", "--net", "--map-root-user"]
    try:
        probe = subprocess.run([*words, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return []
    return words if probe.returncode == 0 else []
