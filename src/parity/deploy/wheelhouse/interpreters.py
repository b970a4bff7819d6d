"""The search for another Python on this machine: the image's version, to verify wheels with."""

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from parity.run.errors import BadConfig

_CHECK = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
_SECONDS = 20  # to print its version on a busy machine


def find(minor: str) -> Path:
    """Return a Python of this minor version, such as `3.12`, that runs.

    Search order: the variable PARITY_PYTHON312, `python3.12` on the path, the siblings of the
    running Python (pyenv and uv install versions next to each other), pyenv's versions.

    Raises:
        BadConfig: there is none, or the variable names something else.
    """
    variable = f"PARITY_PYTHON{minor.replace('.', '')}"
    if value := os.environ.get(variable):
        if not _is_python(Path(value), minor):
            raise BadConfig(f"{variable}={value} is not a working Python {minor}")
        return Path(value)
    for candidate in _candidates(minor):
        if _is_python(candidate, minor):
            return candidate
    raise BadConfig(
        f"no Python {minor} on this machine. Install one (pyenv install {minor}, uv python install "
        f"{minor}) or set {variable}=FILE"
    )


def _candidates(minor: str) -> Iterator[Path]:
    if on_path := shutil.which(f"python{minor}"):
        yield Path(on_path)
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # independent of HOME
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    for versions in (Path(sys.base_prefix).parent, pyenv / "versions"):
        paths = versions.glob(f"*{minor}.*/bin/python{minor}")
        yield from sorted(paths, key=_version_numbers, reverse=True)


def _version_numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.parents[1].name)]


def _is_python(python: Path, minor: str) -> bool:
    """Return whether it runs and has this version; a pyenv shim may exist but not run."""
    try:
        response = subprocess.run(
            [python, "-I", "-c", _CHECK],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return response.returncode == 0 and response.stdout.strip() == minor
