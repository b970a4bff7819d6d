"""Another Python on this machine: the image's, to build a stand-in of it and to prove wheels in."""

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
_SECONDS = 20  # to say its version, on a busy machine


def find(minor: str) -> Path:
    """Return a Python of this minor version, such as `3.12`, that was seen to run.

    Looked for, in order: what the variable PARITY_PYTHON312 names, `python3.12` on the path, the
    neighbours of the running Python (pyenv and uv keep versions side by side), pyenv's versions.

    Raises:
        BadConfig: there is none, or the variable names something else.
    """
    variable = f"PARITY_PYTHON{minor.replace('.', '')}"
    if named := os.environ.get(variable):
        if not _is(Path(named), minor):
            raise BadConfig(f"{variable}={named} is no Python {minor} that runs")
        return Path(named)
    for candidate in _candidates(minor):
        if _is(candidate, minor):
            return candidate
    raise BadConfig(
        f"no Python {minor} here; install one (pyenv install {minor}, uv python install {minor}) "
        f"or name it: {variable}=FILE"
    )


def _candidates(minor: str) -> Iterator[Path]:
    if on_path := shutil.which(f"python{minor}"):
        yield Path(on_path)
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # whatever HOME says
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    for versions in (Path(sys.base_prefix).parent, pyenv / "versions"):
        found = versions.glob(f"*{minor}.*/bin/python{minor}")
        yield from sorted(found, key=_newest, reverse=True)


def _newest(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.parents[1].name)]


def _is(python: Path, minor: str) -> bool:
    """Say whether it runs; a pyenv shim on the path may be there and not."""
    try:
        answer = subprocess.run(
            [python, "-I", "-c", _CHECK],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and answer.stdout.strip() == minor
