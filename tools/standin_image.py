"""Build a stand-in for Kaggle's image on a machine without a registry.

The stand-in is a root file system around a Python 3.12 of this machine: its standard library, the
libraries that its binaries link, bash, coreutils and pip, and a stub of every package in the
image's freeze, so that pip sees the same packages as on Kaggle. `--with` installs real packages
from PyPI at the freeze's versions. It tests Dockerfile, wheelhouse and mounts, but not the image's
packages, CUDA or C library.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from parity.deploy.image import freeze as freezes
from parity.deploy.wheelhouse import interpreters
from parity.run.errors import BadConfig, BadData, ParityError

ROOT = Path(__file__).parents[1]
FREEZE = ROOT / "kaggle" / "image-freeze.txt"
TAG = "localhost/kaggle-standin:py312"
MINOR = "3.12"
PREFIX = Path("usr/local")
SITE = PREFIX / "lib" / f"python{MINOR}" / "site-packages"

PROGRAMS = (
    *("bash", "basename", "cat", "chmod", "chown", "cp", "cut", "date", "dirname", "env", "false"),
    *("head", "id", "ln", "ls", "mkdir", "mktemp", "mv", "rm", "rmdir", "sha256sum", "sleep"),
    *("sort", "stat", "tail", "touch", "tr", "true", "uname", "wc"),
)
LINKED = (
    *("libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1"),
    *("libstdc++.so.6", "libgcc_s.so.1", "libgomp.so.1"),
)
"""Libraries that manylinux wheels expect; without them numpy does not import."""
SETS = {
    "tables": ("numpy", "pandas", "pydantic", "tqdm", "scipy", "scikit-learn"),
    # torch imports optree if its metadata exists, so a stub is not enough
    "models": ("torch", "optree", "transformers", "peft", "accelerate", "safetensors"),
}
"""Sets for `--with`: packages for `prepare` (290 MB), and the others for all stages (7 GB)."""
LEFT_OUT = shutil.ignore_patterns(
    *("site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo"),
    *("lib2to3", "ensurepip", "config-*", "*.opt-1.pyc", "*.opt-2.pyc"),
)


def build(tag: str, freeze: str, real: Sequence[str] = ()) -> None:
    """Build the stand-in and store it in buildah as `tag`.

    Args:
        tag: name of the image.
        freeze: output of `pip freeze` in the image.
        real: packages, or names of `SETS`, to install with their dependencies, at the freeze's
            versions.

    Raises:
        BadConfig: Python 3.12 or buildah is missing.
        BadData: a package is not in the freeze or cannot be installed, or buildah failed.
    """
    python = interpreters.find(MINOR)
    if shutil.which("buildah") is None:
        raise BadConfig("the stand-in needs buildah. On Debian: apt-get install buildah")
    frozen = dict(freezes.parse_pins(freeze))
    packages = [package for name in real for package in SETS.get(name, (name,))]
    if unknown := [name for name in packages if freezes.normalize_name(name) not in frozen]:
        raise BadData(f"--with {unknown[0]}: the image's freeze does not have this package")
    with TemporaryDirectory(prefix="standin-") as name:
        root = Path(name) / "root"
        write_root(root, python)
        if packages:
            install(root / SITE, python, frozen, packages)
        write_stubs(root / SITE, frozen)
        _commit(root, tag)


def write_root(root: Path, python: Path) -> None:
    """Write the root file system: Python, a shell, pip, and the libraries that they link."""
    for folder in ("etc", "tmp", "var/tmp", "root", "proc", "dev", "sys", "usr/bin", "bin"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "var/tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (root / "etc/group").write_text("root:x:0:\n")
    library = Path(_output_of(python, "import sysconfig; print(sysconfig.get_path('stdlib'))"))
    shutil.copytree(library, root / PREFIX / "lib" / f"python{MINOR}", ignore=LEFT_OUT)
    binary = Path(_output_of(python, "import sys; print(sys.executable)")).resolve()
    binaries = root / PREFIX / "bin"
    binaries.mkdir()
    shutil.copy2(binary, binaries / f"python{MINOR}")
    for alias in ("python", "python3"):
        (binaries / alias).symlink_to(f"python{MINOR}")
    programs = [Path(path) for name in PROGRAMS if (path := shutil.which(name))]
    for program in programs:
        shutil.copy2(program, root / "usr/bin" / program.name)
    for shell in ("bin/sh", "bin/bash"):
        (root / shell).symlink_to("/usr/bin/bash")
    modules = sorted((library / "lib-dynload").glob("*.so"))
    _copy_linked(root, [binary, *programs, *modules])
    _copy_pip(root, python)


def write_stubs(site: Path, pins: Mapping[str, str]) -> None:
    """Write metadata that makes pip treat packages as installed; skip those that are.

    Args:
        site: the image's site-packages.
        pins: name → version.
    """
    installed = {_name(folder) for folder in site.glob("*.dist-info")}
    for name, version in pins.items():
        if name not in installed:
            folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
            folder.mkdir()
            record = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            (folder / "METADATA").write_text(record)
            (folder / "INSTALLER").write_text("stub\n")
            (folder / "RECORD").touch()


def install(site: Path, python: Path, pins: Mapping[str, str], real: Sequence[str]) -> None:
    """Install packages and their dependencies from PyPI at the freeze's versions.

    Raises:
        BadData: a package cannot be installed.
    """
    versions = {name: freezes.public_version(version) for name, version in pins.items()}
    constraints = "".join(f"{name}=={version}\n" for name, version in versions.items())
    requirements = [f"{name}=={versions[freezes.normalize_name(name)]}" for name in real]
    uv = Path(sys.executable).with_name("uv")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "constraints.txt"
        path.write_text(constraints)
        target: list[str | Path] = ["--python", python, "--target", site, "-c", path]
        words = [uv, "pip", "install", "--no-config", "--only-binary", ":all:", *target]
        _run([*words, *requirements], "uv", 1200)


def linked(binaries: Sequence[Path]) -> set[Path]:
    """Return the shared libraries that binaries load, from `ldd`."""
    output = subprocess.run(
        ["ldd", *binaries], capture_output=True, text=True, check=False, timeout=60
    ).stdout
    return {Path(name) for name in re.findall(r"(?:=>\s+|^\s+)(/\S+)", output, re.MULTILINE)}


def _copy_linked(root: Path, binaries: Sequence[Path]) -> None:
    """Copy libraries to where the image's loader looks: the system's path, or libc's folder."""
    libraries = linked(binaries)
    system = next(path.parent for path in libraries if path.name == "libc.so.6")
    libraries |= {path for name in LINKED if (path := system / name).exists()}
    libraries |= {
        path for name in LINKED if (path := Path("/usr", *system.parts[1:], name)).exists()
    }
    for path in libraries:
        visible = path if path.parts[1] in ("lib", "lib64") else system / path.name
        target = root / visible.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path.resolve(), target)


def _copy_pip(root: Path, python: Path) -> None:
    with TemporaryDirectory() as name:
        _run([python, "-I", "-m", "venv", name], "ensurepip", 120)
        (package,) = Path(name).rglob("pip/__main__.py")
        shutil.copytree(package.parents[1], root / SITE)


def _name(info: Path) -> str:
    return freezes.normalize_name(info.name.partition("-")[0])


def _commit(root: Path, tag: str) -> None:
    container = _run(["buildah", "from", "scratch"], "buildah", 60).strip()
    try:
        _run(["buildah", "add", "--quiet", container, root, "/"], "buildah", 600)
        path = "PATH=/usr/local/bin:/usr/bin:/bin"
        _run(["buildah", "config", "--env", path, container], "buildah", 60)
        _run(["buildah", "commit", "--quiet", container, tag], "buildah", 900)
    finally:
        _run(["buildah", "rm", container], "buildah", 60)


def _output_of(python: Path, code: str) -> str:
    return _run([python, "-I", "-c", code], python.name, 20).strip()


def _run(words: Sequence[str | Path], program: str, seconds: int) -> str:
    response = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds)
    if response.returncode:
        last = (response.stderr.strip().splitlines() or ["no error message"])[-1]
        raise BadData(f"the stand-in could not be built: {program}: {last}")
    return response.stdout


def main() -> None:
    """Build the stand-in and print its tag, or one line of error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tag", default=TAG)
    parser.add_argument(
        "--with", dest="real", nargs="*", default=[], metavar="PACKAGE", help=f"or {list(SETS)}"
    )
    arguments = parser.parse_args()
    try:
        build(arguments.tag, FREEZE.read_text(encoding="utf-8"), arguments.real)
    except ParityError as error:
        raise SystemExit(f"error: {error}") from error
    print(arguments.tag)


if __name__ == "__main__":
    main()
