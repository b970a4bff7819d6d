"""Run a command in an image: without a network, with a read-only root, and only given mounts.

Paths are mounted at the same path as on this machine, so that they mean the same in the image. The
image's packages are used, including the project's. Docker and Podman do all of this themselves;
Buildah only mounts the image, and bubblewrap runs the command in it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from parity.deploy.image import engines
from parity.deploy.image.engines import Engine
from parity.run.errors import BadConfig

_SECONDS = 60
_RESERVED = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "usr")
_NAMESPACES = ("net", "pid", "ipc", "uts", "cgroup-try")
# Root keeps its capabilities over files, because the data may belong to another user.
_CAPABILITIES = ("--cap-drop", "ALL", "--cap-add", "CAP_DAC_OVERRIDE", "--cap-add", "CAP_FOWNER")
_DRIVER = Path("/usr/local/nvidia/lib64")  # where images look for the driver's libraries
_DEVICES = ("nvidia*", "nvidia-caps/*")
_LIBRARIES = ("libcuda.so*", "libnvidia-*.so*")


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of this machine that is mounted in the image.

    Attributes:
        source: path on this machine.
        target: absolute path in the image.
        writable: whether the command may change it.
    """

    source: Path
    target: Path
    writable: bool = False


@dataclass(frozen=True, slots=True)
class ContainerJob:
    """A command to run in an image.

    Attributes:
        command: program and arguments.
        mounts: files and folders to mount; a later mount hides an earlier one below it.
        cwd: working folder, an absolute path.
        env: environment variables, which override the image's.
        gpu: whether to pass the machine's GPUs through.
    """

    command: Sequence[str]
    mounts: Sequence[Mount]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = False


def mount_at_same_path(path: Path, *, writable: bool = False) -> Mount:
    """Return a mount whose path in the image is its path on this machine.

    Raises:
        BadConfig: the path does not exist, or the image has its own files there.
    """
    target = Path(os.path.abspath(path))  # noqa: PTH100 – a link keeps the name it is used by
    if not target.exists():
        raise BadConfig(f"{path} does not exist, so it cannot be mounted in the image")
    if len(target.parts) < 2 or target.parts[1] in _RESERVED:
        raise BadConfig(
            f"{target} cannot be mounted, because the image has its own files there. Move it"
        )
    return Mount(target.resolve(), target, writable)


@contextmanager
def open_container(engine: Engine, image: str, job: ContainerJob) -> Iterator[list[str]]:
    """Yield the command that runs the job in the image; remove its container afterwards.

    Raises:
        BadConfig: the engine does not have the image, or bubblewrap is missing.
    """
    built = engines.inspect_image(engine, image)
    if built is None:
        raise BadConfig(f"{engine} does not have the image {image}", fix=("image",))
    if engine.name != "buildah":
        yield run_command(engine, image, job)
        return
    if shutil.which("bwrap") is None:
        raise BadConfig(
            "running a command in buildah's image needs bubblewrap: apt-get install bubblewrap"
        )
    container = _buildah("from", "--pull-never", image)
    try:
        yield [*_bubblewrap_prefix(container), *bubblewrap_arguments(job, built.env)]
    finally:
        _buildah("rm", container)


def run_command(engine: Engine, image: str, job: ContainerJob) -> list[str]:
    """Return the command for Docker or Podman; new files belong to the calling user."""
    user = f"{os.getuid()}:{os.getgid()}"
    words = [engine.name, "run", "--rm", "--init", "--network", "none", "--read-only"]
    words += ["--tmpfs", "/tmp:mode=1777", "--user", user, "--workdir", str(job.cwd)]
    if engine.name == "podman" and os.getuid():
        words += ["--userns", "keep-id"]
    if job.gpu:
        flags = {"docker": ["--gpus", "all"], "podman": ["--device", "nvidia.com/gpu=all"]}
        words += [*flags[engine.name], "--shm-size", "8g"]
    for mount in job.mounts:
        value = f"type=bind,source={mount.source},target={mount.target}"
        words += ["--mount", value + ",readonly" * (not mount.writable)]
    for name, value in _environment(job).items():
        words += ["--env", f"{name}={value}"]
    return [*words, image, *job.command]


def bubblewrap_arguments(job: ContainerJob, env: Mapping[str, str]) -> list[str]:
    """Return bubblewrap's arguments after `--bind ROOT`, where ROOT is the image's mounted root.

    The root is writable while mount points are created, and read-only afterwards.

    Args:
        job: the command to run.
        env: the image's environment variables.
    """
    words = ["/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--dir", str(job.cwd)]
    words += ["--die-with-parent", *(f"--unshare-{name}" for name in _NAMESPACES), *_CAPABILITIES]
    for mount in job.mounts:
        words += ["--bind" if mount.writable else "--ro-bind", str(mount.source), str(mount.target)]
    variables = {**env, **_environment(job)}
    if job.gpu:
        words += _gpu_arguments()
        search_path = f"{_DRIVER}:{variables.get('LD_LIBRARY_PATH', '')}"
        variables["LD_LIBRARY_PATH"] = search_path.rstrip(":")
    words += ["--remount-ro", "/", "--chdir", str(job.cwd), "--clearenv"]
    for name, value in variables.items():
        words += ["--setenv", name, value]
    return [*words, *job.command]


def _environment(job: ContainerJob) -> dict[str, str]:
    """Return a job's variables; a user id that the image doesn't know has no home in it."""
    return {"HOME": "/tmp", "USER": "kaggle", **job.env}


def _gpu_arguments() -> list[str]:
    """Return the arguments that mount devices and driver, as NVIDIA's container hook does."""
    words = []
    for device in sorted(path for name in _DEVICES for path in Path("/dev").glob(name)):
        if not device.is_dir():
            words += ["--dev-bind", str(device), str(device)]
    folders = _library_folders()
    libraries = {
        path.name: path for folder in folders for name in _LIBRARIES for path in folder.glob(name)
    }
    for name, library in sorted(libraries.items()):
        words += ["--ro-bind", str(library.resolve()), str(_DRIVER / name)]
    return words


def _library_folders() -> list[Path]:
    listing = subprocess.run(
        ["ldconfig", "-p"], capture_output=True, text=True, check=False, timeout=_SECONDS
    ).stdout
    lines = (
        line.rpartition("=> ")[2].strip() for line in listing.splitlines() if "libcuda.so" in line
    )
    return sorted({Path(line).parent for line in lines if "/lib32/" not in line})


def _bubblewrap_prefix(container: str) -> list[str]:
    """Return the command prefix that starts bubblewrap with a container's root mounted.

    An ordinary user may mount it only in a user namespace, where that user is root.
    """
    if os.geteuid() == 0:
        return ["bwrap", "--bind", _buildah("mount", container)]
    prefix = ["buildah", "unshare", "--mount", f"ROOT={container}"]
    return [*prefix, "sh", "-c", 'exec bwrap --bind "$ROOT" "$@"', "bwrap"]


def _buildah(*words: str) -> str:
    response = subprocess.run(
        ["buildah", *words], capture_output=True, text=True, check=False, timeout=_SECONDS
    )
    if response.returncode:
        last = (response.stderr.strip().splitlines() or ["no error message"])[-1]
        raise BadConfig(f"buildah {words[0]} failed: {last}")
    return response.stdout.strip()
