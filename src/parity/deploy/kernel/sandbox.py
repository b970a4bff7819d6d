"""Isolation of a kernel from this machine, as on Kaggle: offline, with a read-only input.

Where bubblewrap is allowed, the kernel gets its own file system and network. Elsewhere an audit
hook in each of its Python processes guards it. `Sandbox.name` says which one was used.
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
"""Path of a kernel's script on Kaggle."""

_SECONDS = 60  # timeout of the check whether a sandbox can start
_PACKAGES = ("site-packages", "dist-packages")
_PASSED_ON = (
    *("PATH", "LANG", "LC_ALL"),
    *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "JAX_PLATFORMS"),
    *("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"),
)
_APART = ("dev", "kaggle", "proc", "run", "tmp")  # folders of the root that a sandbox replaces
_GUARD = '''\
"""End the kernel if it does what Kaggle forbids; import the project only from its wheel."""

import errno
import os
import sys

connects = ("connect", "sendto", "sendmsg")
lookups = ("getaddrinfo", "gethostbyname", "gethostbyaddr")
hosts = {f"socket.{name}": 1 for name in connects} | {f"socket.{name}": 0 for name in lookups}
near = (None, "", "localhost", "::1", os.uname().nodename)
changes = {f"os.{name}" for name in ("mkdir", "rmdir", "remove", "rename", "truncate", "chmod")}
changes |= {"os.link", "os.symlink", "shutil.rmtree"}
fixed = os.path.join(os.environ.get("PARITY_KAGGLE", "/kaggle"), "input", "")


def reached(event, args):
    address = args[hosts[event]]
    if hosts[event] and not isinstance(address, tuple):
        return  # a Unix socket
    host = address[0] if isinstance(address, tuple) else address
    host = host.decode() if isinstance(host, bytes) else host
    if host in near or host.startswith("127."):
        return  # processes of one kernel communicate
    sys.stdout.flush()
    os.write(2, f"error: the kernel tried to reach the network: {event} {address!r}\\n".encode())
    os._exit(1)  # at once, because an exception could be caught or end only its thread


def changed(args):
    for path in args[:2]:
        if isinstance(path, (str, bytes, os.PathLike)):
            if os.path.join(os.path.abspath(os.fsdecode(path)), "").startswith(fixed):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)


def guard(event, args):
    if event in hosts:
        reached(event, args)
    elif event in changes or event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR):
        changed(args)


sys.addaudithook(guard)
listed = os.environ.get("PYTHONPATH", "").split(os.pathsep)
sys.path[:] = [
    path for path in sys.path if path in listed or not os.path.isfile(f"{path}/parity/__init__.py")
]
'''
# A new network namespace has no loopback, which several processes need.
_LOOPBACK = """\
import fcntl, os, socket, struct, sys
with socket.socket() as handle:
    fcntl.ioctl(handle, 0x8914, struct.pack("16sh22x", b"lo", 0x41))
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The isolation of a kernel.

    Attributes:
        name: description for the output.
        words: command that starts the script.
        env: complete environment variables.
    """

    name: str
    words: Sequence[str]
    env: Mapping[str, str]


def isolated(kernel: Path, root: Path, *, hidden: Iterable[Path] = (), threads: int = 0) -> Sandbox:
    """Return the strongest sandbox that this machine allows.

    Every sandbox has no network beyond this machine, a read-only input, an empty home, no variables
    with keys or paths, and the project from its wheel. With its own file system the kernel also has
    /kaggle, and sees only this Python and the laid-out folder.

    Args:
        kernel: script of the kernel.
        root: folder that `lay_out` created; a guard is written into it.
        hidden: folders that the kernel must not see, such as the project's source.
        threads: number of threads per process; 0 keeps the current setting.
    """
    files.write_text(root / "guard" / "sitecustomize.py", _GUARD)
    variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    variables |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
    variables |= {"HF_HUB_OFFLINE": "1", "PYTHONNOUSERSITE": "1", "USER": "kaggle"}
    root, kernel = root.resolve(), kernel.resolve()
    return _sandboxed(kernel, root, hidden, variables) or _guarded(kernel, root, variables)


def _sandboxed(
    kernel: Path, root: Path, hidden: Iterable[Path], variables: Mapping[str, str]
) -> Sandbox | None:
    """Return the bubblewrap sandbox, or None if it is missing or not allowed."""
    mounts = [
        *("--ro-bind", str(root / "input"), "/kaggle/input"),
        *("--bind", str(root / "working"), "/kaggle/working"),
        *("--ro-bind", str(root / "guard"), "/kaggle/guard"),
        *("--ro-bind", str(kernel), SCRIPT),
        *("--dir", "/tmp/home", "--remount-ro", "/", "--chdir", "/kaggle/working"),
    ]
    words = ["bwrap", "--unshare-all", "--die-with-parent", *_machine(), *_covers(hidden), *mounts]
    env = {**variables, "HOME": "/tmp/home", "PYTHONPATH": "/kaggle/guard"}
    if not _works(words, env):
        return None
    return Sandbox("file system and network of its own", [*words, sys.executable, SCRIPT], env)


def _guarded(kernel: Path, root: Path, variables: Mapping[str, str]) -> Sandbox:
    """Return the guard's sandbox, in its own network namespace if allowed."""
    home = root / "home"
    home.mkdir(exist_ok=True)
    env = {**variables, "HOME": str(home), "PYTHONPATH": str(root / "guard")}
    words = ["unshare", "--net", "--map-root-user", sys.executable, "-I", "-c", _LOOPBACK]
    has_network = _works(words, env)
    name = "network of its own and guard" if has_network else "guard"
    launcher = [*words, sys.executable] if has_network else [sys.executable]
    return Sandbox(name, [*launcher, str(kernel)], {**env, "PARITY_KAGGLE": str(root)})


def _machine() -> Iterator[str]:
    """Yield arguments that mount this machine's files read-only, and its GPUs."""
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
    """Yield arguments that hide folders and homes, but not the running Python."""
    folders = {Path.home(), *hidden}
    with contextlib.suppress(KeyError):  # the user id may have no account
        folders.add(Path(pwd.getpwuid(os.getuid()).pw_dir))
    covered = sorted({path.resolve() for path in folders if path.is_dir()} - {Path("/")})
    for path in covered:
        yield from ("--tmpfs", str(path))
    for prefix in sorted(_prefixes()):
        if any(prefix.is_relative_to(path) for path in (*covered, Path("/tmp"), Path("/run"))):
            yield from ("--ro-bind", str(prefix), str(prefix))


def _prefixes() -> set[Path]:
    """Return the folders of the running Python, by every path that links to them.

    Installed packages may also be elsewhere: a .pth file can add another environment's.
    """
    prefixes = {Path(sys.prefix), Path(sys.base_prefix)}
    prefixes |= {path for path in map(Path, sys.path) if path.name in _PACKAGES and path.is_dir()}
    program = Path(sys.executable)
    while program.is_symlink():
        program = program.parent / program.readlink()
        prefixes.add(program.parents[1])
    return prefixes | {path.resolve() for path in prefixes}


def _works(words: Sequence[str], env: Mapping[str, str]) -> bool:
    """Return whether this command starts this Python."""
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
