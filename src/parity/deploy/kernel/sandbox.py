"""Keep a kernel apart from this machine as Kaggle does: offline, its input read-only, nothing else.

Bubblewrap gives it a file system and a network of its own, where that is allowed. Elsewhere a guard
within each of its Pythons does what it can, and the result says which of the two it was.
"""

import contextlib
import os
import pwd
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from parity.run import files

SCRIPT = "/kaggle/src/script.py"
"""Where Kaggle puts a kernel's script."""

_SECONDS = 60  # to find out whether a way of starting works
_KEPT = (
    *("PATH", "LANG", "LC_ALL"),
    *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "JAX_PLATFORMS"),
    *("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"),
)
_APART = ("dev", "kaggle", "proc", "run", "tmp")  # of the root: what a sandbox has of its own
_GUARD = '''\
"""What Kaggle would refuse ends the kernel, and the project is taken from its wheel alone."""

import errno
import os
import sys

sent, asked = ("connect", "sendto", "sendmsg"), ("getaddrinfo", "gethostbyname", "gethostbyaddr")
places = {f"socket.{name}": 1 for name in sent} | {f"socket.{name}": 0 for name in asked}
near = (None, "", "localhost", "::1", os.uname().nodename)
changes = {f"os.{name}" for name in ("mkdir", "rmdir", "remove", "rename", "truncate", "chmod")}
changes |= {"os.link", "os.symlink", "shutil.rmtree"}
fixed = os.path.join(os.environ.get("PARITY_KAGGLE", "/kaggle"), "input", "")


def reached(event, args):
    address = args[places[event]]
    if places[event] and not isinstance(address, tuple):
        return  # a Unix socket
    host = address[0] if isinstance(address, tuple) else address
    host = host.decode() if isinstance(host, bytes) else host
    if host in near or host.startswith("127."):
        return  # several processes of one kernel talk to each other
    sys.stdout.flush()
    os.write(2, f"error: the kernel tried to reach the network: {event} {address!r}\\n".encode())
    os._exit(1)  # there and then, for an exception could be caught, or die with a thread of its own


def changed(args):
    for path in args[:2]:
        if isinstance(path, (str, bytes, os.PathLike)):
            if os.path.join(os.path.abspath(os.fsdecode(path)), "").startswith(fixed):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)


def guard(event, args):
    if event in places:
        reached(event, args)
    elif event in changes or event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR):
        changed(args)


sys.addaudithook(guard)
given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
sys.path[:] = [
    one for one in sys.path if one in given or not os.path.isfile(f"{one}/parity/__init__.py")
]
'''
# A network namespace begins without even a loopback, which several processes need.
_LOOPBACK = """\
import fcntl, os, socket, struct, sys
with socket.socket() as one:
    fcntl.ioctl(one, 0x8914, struct.pack("16sh22x", b"lo", 0x41))
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How a kernel is kept apart.

    Attributes:
        name: for a person.
        words: what starts its script.
        env: its whole environment.
    """

    name: str
    words: Sequence[str]
    env: Mapping[str, str]


def isolated(kernel: Path, root: Path, *, hidden: Iterable[Path] = (), threads: int = 0) -> Sandbox:
    """Return the best way that this machine has to keep a kernel apart.

    Either way: no network beyond this machine, a read-only input, an empty home, no variable that
    holds a key or a place, and the project from its wheel. In a file system of its own /kaggle is
    where Kaggle has it, and nothing but this Python and the laid-out folder is to be found.

    Args:
        kernel: the script.
        root: as `lay_out` made it; a guard is written into it.
        hidden: folders that the kernel must not find, such as the project's source.
        threads: of each of its processes; 0 leaves them as they are set here.
    """
    files.write_text(root / "guard" / "sitecustomize.py", _GUARD)
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    kept |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
    kept |= {"HF_HUB_OFFLINE": "1", "PYTHONNOUSERSITE": "1", "USER": "kaggle"}
    root, kernel = root.resolve(), kernel.resolve()
    return _sandboxed(kernel, root, hidden, kept) or _guarded(kernel, root, kept)


def _sandboxed(
    kernel: Path, root: Path, hidden: Iterable[Path], kept: Mapping[str, str]
) -> Sandbox | None:
    """Return the way of bubblewrap, None where it is not there or not allowed."""
    mounts = [
        *("--ro-bind", str(root / "input"), "/kaggle/input"),
        *("--bind", str(root / "working"), "/kaggle/working"),
        *("--ro-bind", str(root / "guard"), "/kaggle/guard"),
        *("--ro-bind", str(kernel), SCRIPT),
        *("--dir", "/tmp/home", "--remount-ro", "/", "--chdir", "/kaggle/working"),
    ]
    words = ["bwrap", "--unshare-all", "--die-with-parent", *_machine(), *_covers(hidden), *mounts]
    env = {**kept, "HOME": "/tmp/home", "PYTHONPATH": "/kaggle/guard"}
    if not _works(words, env):
        return None
    return Sandbox("file system and network of its own", [*words, sys.executable, SCRIPT], env)


def _guarded(kernel: Path, root: Path, kept: Mapping[str, str]) -> Sandbox:
    """Return the way of the guard alone, in a network namespace where one is allowed."""
    home = root / "home"
    home.mkdir(exist_ok=True)
    env = {**kept, "HOME": str(home), "PYTHONPATH": str(root / "guard")}
    words = ["unshare", "--net", "--map-root-user", sys.executable, "-I", "-c", _LOOPBACK]
    alone = _works(words, env)
    name = "network of its own and guard" if alone else "guard"
    told = [*words, sys.executable] if alone else [sys.executable]
    return Sandbox(name, [*told, str(kernel)], {**env, "PARITY_KAGGLE": str(root)})


def _machine() -> Iterator[str]:
    """Yield the words that show this machine's files, read-only, and its GPUs."""
    for path in sorted(Path("/").iterdir()):
        if path.name in _APART:
            continue
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))
    yield from ("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run")
    for path in sorted(Path("/dev").glob("nvidia*")):
        yield from ("--dev-bind", str(path), str(path))


def _covers(hidden: Iterable[Path]) -> Iterator[str]:
    """Yield the words that hide folders and every home, but not the Python that runs."""
    wanted = {Path.home(), *hidden}
    with contextlib.suppress(KeyError):  # a number that is no user
        wanted.add(Path(pwd.getpwuid(os.getuid()).pw_dir))
    covered = sorted({path.resolve() for path in wanted if path.is_dir()} - {Path("/")})
    for path in covered:
        yield from ("--tmpfs", str(path))
    for prefix in sorted(_prefixes()):
        if any(prefix.is_relative_to(path) for path in (*covered, Path("/tmp"), Path("/run"))):
            yield from ("--ro-bind", str(prefix), str(prefix))


def _prefixes() -> set[Path]:
    """Return the folders that the running Python needs, under every name that leads to them."""
    found = {Path(sys.prefix), Path(sys.base_prefix)}
    program = Path(sys.executable)
    while program.is_symlink():
        program = program.parent / program.readlink()
        found.add(program.parents[1])
    return found | {path.resolve() for path in found}


def _works(words: Sequence[str], env: Mapping[str, str]) -> bool:
    """Say whether this way of starting starts this Python."""
    try:
        probe = subprocess.run(
            [*words, sys.executable, "-S", "-c", ""],
            env=env,
            capture_output=True,
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return probe.returncode == 0
