"""Build a stand-in for Kaggle's image where the real one cannot be had: no registry, no network.

A root file system around a Python 3.12 found on this machine: its standard library, what its
binaries link, bash, coreutils and pip; and a stub of every package that the image's freeze names,
so that pip sees there what it would see on Kaggle. Packages named with `--with` are installed
for real, at the freeze's versions, from PyPI. It proves Dockerfile, wheelhouse and mounts; it says
nothing of the image's packages, CUDA or C library.
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
"""What manylinux wheels may count on; without them numpy does not import."""
SETS = {
    "tables": ("numpy", "pandas", "pydantic", "tqdm", "scipy", "scikit-learn"),
    # torch takes optree for there when a stub says so
    "models": ("torch", "optree", "transformers", "peft", "accelerate", "safetensors"),
}
"""Names for `--with`: what `prepare` needs (290 MB), and with it what all stages do (7 GB)."""
LEFT_OUT = shutil.ignore_patterns(
    *("site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo"),
    *("lib2to3", "ensurepip", "config-*", "*.opt-1.pyc", "*.opt-2.pyc"),
)


def build(tag: str, freeze: str, real: Sequence[str] = ()) -> None:
    """Build the stand-in and keep it with buildah as `tag`.

    Args:
        tag: its name.
        freeze: the image's packages, as `pip freeze` prints them.
        real: packages, or names of `SETS`, to install for real, with what they need, at the
            freeze's versions.

    Raises:
        BadConfig: there is no Python 3.12 or no buildah.
        BadData: a package is not in the freeze or cannot be had, or buildah failed.
    """
    python = interpreters.find(MINOR)
    if shutil.which("buildah") is None:
        raise BadConfig("the stand-in needs buildah; on Debian: apt-get install buildah")
    known = dict(freezes.pins(freeze))
    wanted = [one for name in real for one in SETS.get(name, (name,))]
    if odd := [name for name in wanted if freezes.normal(name) not in known]:
        raise BadData(f"--with {odd[0]}: the image's freeze names no such package")
    with TemporaryDirectory(prefix="standin-") as name:
        root = Path(name) / "root"
        lay_out(root, python)
        if wanted:
            install(root / SITE, python, known, wanted)
        stub(root / SITE, known)
        _import(root, tag)


def lay_out(root: Path, python: Path) -> None:
    """Make the root file system: Python, a shell, pip, and what they link."""
    for folder in ("etc", "tmp", "var/tmp", "root", "proc", "dev", "sys", "usr/bin", "bin"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "var/tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (root / "etc/group").write_text("root:x:0:\n")
    library = Path(_ask(python, "import sysconfig; print(sysconfig.get_path('stdlib'))"))
    shutil.copytree(library, root / PREFIX / "lib" / f"python{MINOR}", ignore=LEFT_OUT)
    binary = Path(_ask(python, "import sys; print(sys.executable)")).resolve()
    place = root / PREFIX / "bin"
    place.mkdir()
    shutil.copy2(binary, place / f"python{MINOR}")
    for alias in ("python", "python3"):
        (place / alias).symlink_to(f"python{MINOR}")
    programs = [Path(found) for name in PROGRAMS if (found := shutil.which(name))]
    for program in programs:
        shutil.copy2(program, root / "usr/bin" / program.name)
    for shell in ("bin/sh", "bin/bash"):
        (root / shell).symlink_to("/usr/bin/bash")
    modules = sorted((library / "lib-dynload").glob("*.so"))
    _copy_linked(root, [binary, *programs, *modules])
    _copy_pip(root, python)


def stub(site: Path, pins: Mapping[str, str]) -> None:
    """Make pip believe that these packages are installed, those apart that are.

    Args:
        site: the image's site-packages.
        pins: name → version.
    """
    there = {_name(folder) for folder in site.glob("*.dist-info")}
    for name, version in pins.items():
        if name not in there:
            folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
            folder.mkdir()
            record = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            (folder / "METADATA").write_text(record)
            (folder / "INSTALLER").write_text("stub\n")
            (folder / "RECORD").touch()


def install(site: Path, python: Path, pins: Mapping[str, str], real: Sequence[str]) -> None:
    """Install packages and what they need from PyPI, all at the freeze's versions.

    Raises:
        BadData: one cannot be had.
    """
    known = {name: freezes.public(version) for name, version in pins.items()}
    under = "".join(f"{name}=={version}\n" for name, version in known.items())
    wanted = [f"{name}=={known[freezes.normal(name)]}" for name in real]
    uv = Path(sys.executable).with_name("uv")
    with TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(under)
        target: list[str | Path] = ["--python", python, "--target", site, "-c", constraints]
        words = [uv, "pip", "install", "--no-config", "--only-binary", ":all:", *target]
        _run([*words, *wanted], "uv", 1200)


def linked(binaries: Sequence[Path]) -> set[Path]:
    """Return the shared libraries that binaries load, as `ldd` finds them."""
    told = subprocess.run(
        ["ldd", *binaries], capture_output=True, text=True, check=False, timeout=60
    ).stdout
    return {Path(name) for name in re.findall(r"(?:=>\s+|^\s+)(/\S+)", told, re.MULTILINE)}


def _copy_linked(root: Path, binaries: Sequence[Path]) -> None:
    """Copy libraries to where the image's loader looks: a system's own path, or beside libc."""
    found = linked(binaries)
    system = next(path.parent for path in found if path.name == "libc.so.6")
    found |= {path for name in LINKED if (path := system / name).exists()}
    found |= {path for name in LINKED if (path := Path("/usr", *system.parts[1:], name)).exists()}
    for path in found:
        seen = path if path.parts[1] in ("lib", "lib64") else system / path.name
        target = root / seen.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path.resolve(), target)


def _copy_pip(root: Path, python: Path) -> None:
    with TemporaryDirectory() as name:
        _run([python, "-I", "-m", "venv", name], "ensurepip", 120)
        (package,) = Path(name).rglob("pip/__main__.py")
        shutil.copytree(package.parents[1], root / SITE)


def _name(info: Path) -> str:
    return freezes.normal(info.name.partition("-")[0])


def _import(root: Path, tag: str) -> None:
    container = _run(["buildah", "from", "scratch"], "buildah", 60).strip()
    try:
        _run(["buildah", "add", "--quiet", container, root, "/"], "buildah", 600)
        path = "PATH=/usr/local/bin:/usr/bin:/bin"
        _run(["buildah", "config", "--env", path, container], "buildah", 60)
        _run(["buildah", "commit", "--quiet", container, tag], "buildah", 900)
    finally:
        _run(["buildah", "rm", container], "buildah", 60)


def _ask(python: Path, code: str) -> str:
    return _run([python, "-I", "-c", code], python.name, 20).strip()


def _run(words: Sequence[str | Path], who: str, seconds: int) -> str:
    answer = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds)
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no word of why"])[-1]
        raise BadData(f"the stand-in could not be built: {who}: {last}")
    return answer.stdout


def main() -> None:
    """Build the stand-in; say in one line what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tag", default=TAG)
    parser.add_argument(
        "--with", dest="real", nargs="*", default=[], metavar="PACKAGE", help=f"or {list(SETS)}"
    )
    asked = parser.parse_args()
    try:
        build(asked.tag, FREEZE.read_text(encoding="utf-8"), asked.real)
    except ParityError as error:
        raise SystemExit(f"error: {error}") from error
    print(asked.tag)


if __name__ == "__main__":
    main()
