"""Run a command inside an image: no network, a read-only root, and only the places it is given.

A place is mounted where it lies here, so that paths mean the same inside and out; the image's own
packages run, the project among them. Docker and Podman do it themselves; Buildah only mounts the
image, and bubblewrap runs in it.
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
_OWN = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "usr")
_SPACES = ("net", "pid", "ipc", "uts", "cgroup-try")
# Of root's powers those over files stay, for a person's data may be another user's.
_POWERS = ("--cap-drop", "ALL", "--cap-add", "CAP_DAC_OVERRIDE", "--cap-add", "CAP_FOWNER")
_DRIVER = Path("/usr/local/nvidia/lib64")  # where images look for the driver's libraries
_DEVICES = ("nvidia*", "nvidia-caps/*")
_LIBRARIES = ("libcuda.so*", "libnvidia-*.so*")


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of this machine that is mounted.

    Attributes:
        source: where it lies here.
        target: where it is seen inside, an absolute path.
        writable: whether it may be changed inside.
    """

    source: Path
    target: Path
    writable: bool = False


@dataclass(frozen=True, slots=True)
class ContainerJob:
    """What is run inside.

    Attributes:
        command: program and arguments.
        places: what is mounted; a later one lies over an earlier one.
        cwd: the working folder, an absolute path.
        env: variables, over the image's own.
        gpu: whether the machine's GPUs are passed through.
    """

    command: Sequence[str]
    places: Sequence[Mount]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = False


def same(path: Path, *, writable: bool = False) -> Mount:
    """Return a place seen inside under the very path it has here.

    Raises:
        BadConfig: it is not there, or lies where the image has its own files.
    """
    target = Path(os.path.abspath(path))  # noqa: PTH100 – a link stays the name it is used by
    if not target.exists():
        raise BadConfig(f"{path}: not there, so it cannot be mounted in the image")
    if len(target.parts) < 2 or target.parts[1] in _OWN:
        raise BadConfig(f"{target}: the image has files of its own there; move it elsewhere")
    return Mount(target.resolve(), target, writable)


@contextmanager
def entered(engine: Engine, image: str, job: ContainerJob) -> Iterator[list[str]]:
    """Yield the words that run the job in the image; what was mounted for it goes at the end.

    Raises:
        BadConfig: the engine does not have the image, or bubblewrap is missing.
    """
    built = engines.look(engine, image)
    if built is None:
        raise BadConfig(f"{engine} does not have the image {image}; run: invoke image")
    if engine.name != "buildah":
        yield run_words(engine, image, job)
        return
    if shutil.which("bwrap") is None:
        raise BadConfig("running in buildah's image needs bubblewrap; apt-get install bubblewrap")
    container = _buildah("from", "--pull-never", image)
    try:
        yield [*_over(container), *bubblewrap_words(job, built.env)]
    finally:
        _buildah("rm", container)


def run_words(engine: Engine, image: str, job: ContainerJob) -> list[str]:
    """Return the words of Docker or Podman; files made inside belong to who runs them here."""
    user = f"{os.getuid()}:{os.getgid()}"
    words = [engine.name, "run", "--rm", "--init", "--network", "none", "--read-only"]
    words += ["--tmpfs", "/tmp:mode=1777", "--user", user, "--workdir", str(job.cwd)]
    if engine.name == "podman" and os.getuid():
        words += ["--userns", "keep-id"]
    if job.gpu:
        named = {"docker": ["--gpus", "all"], "podman": ["--device", "nvidia.com/gpu=all"]}
        words += [*named[engine.name], "--shm-size", "8g"]
    for place in job.places:
        mount = f"type=bind,source={place.source},target={place.target}"
        words += ["--mount", mount + ",readonly" * (not place.writable)]
    for name, value in _environment(job).items():
        words += ["--env", f"{name}={value}"]
    return [*words, image, *job.command]


def bubblewrap_words(job: ContainerJob, env: Mapping[str, str]) -> list[str]:
    """Return the words of bubblewrap that follow `--bind ROOT`, the image's mounted root.

    The root is writable while the mount points are made, and read-only from then on.

    Args:
        job: what is run.
        env: the image's own variables.
    """
    words = ["/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--dir", str(job.cwd)]
    words += ["--die-with-parent", *(f"--unshare-{space}" for space in _SPACES), *_POWERS]
    for place in job.places:
        words += ["--bind" if place.writable else "--ro-bind", str(place.source), str(place.target)]
    variables = {**env, **_environment(job)}
    if job.gpu:
        words += _gpu_words()
        searched = f"{_DRIVER}:{variables.get('LD_LIBRARY_PATH', '')}"
        variables["LD_LIBRARY_PATH"] = searched.rstrip(":")
    words += ["--remount-ro", "/", "--chdir", str(job.cwd), "--clearenv"]
    for name, value in variables.items():
        words += ["--setenv", name, value]
    return [*words, *job.command]


def _environment(job: ContainerJob) -> dict[str, str]:
    """Return a job's variables; a number that is no user of the image has no home there."""
    return {"HOME": "/tmp", "USER": "kaggle", **job.env}


def _gpu_words() -> list[str]:
    """Return the words that pass devices and driver through, as NVIDIA's container hook does."""
    words = []
    for device in sorted(path for name in _DEVICES for path in Path("/dev").glob(name)):
        if not device.is_dir():
            words += ["--dev-bind", str(device), str(device)]
    folders = _library_folders()
    found = {
        path.name: path for folder in folders for name in _LIBRARIES for path in folder.glob(name)
    }
    for name, library in sorted(found.items()):
        words += ["--ro-bind", str(library.resolve()), str(_DRIVER / name)]
    return words


def _library_folders() -> list[Path]:
    known = subprocess.run(
        ["ldconfig", "-p"], capture_output=True, text=True, check=False, timeout=_SECONDS
    ).stdout
    lines = (
        line.rpartition("=> ")[2].strip() for line in known.splitlines() if "libcuda.so" in line
    )
    return sorted({Path(line).parent for line in lines if "/lib32/" not in line})


def _over(container: str) -> list[str]:
    """Return the words that start bubblewrap with a container's root mounted.

    An ordinary user may mount it only in a user namespace, where they are root.
    """
    if os.geteuid() == 0:
        return ["bwrap", "--bind", _buildah("mount", container)]
    mounted = ["buildah", "unshare", "--mount", f"ROOT={container}"]
    return [*mounted, "sh", "-c", 'exec bwrap --bind "$ROOT" "$@"', "bwrap"]


def _buildah(*words: str) -> str:
    answer = subprocess.run(
        ["buildah", *words], capture_output=True, text=True, check=False, timeout=_SECONDS
    )
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no word of why"])[-1]
        raise BadConfig(f"buildah {words[0]} failed: {last}")
    return answer.stdout.strip()
