"""Files that travel with the package: run files, shipped competitions, kernel script, locks.

In a checkout they are at its root; in an installed package they are under `parity/resources`, where
`tools/build_hook.py` puts them.
"""

import json
import subprocess
from importlib import resources
from pathlib import Path

from parity.run import digest
from parity.run.errors import BadConfig

_BUILD_FILE = "build.json"


def find_checkout() -> Path | None:
    """Return the root of the checkout this code runs from, None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pyproject.toml").is_file() and (root / "tasks.py").is_file() else None


def find_resource(name: str) -> Path | None:
    """Return the path of a file or folder that travels with the package, None if there is none.

    Args:
        name: path relative to a checkout's root, such as `kaggle/kernel.py`.
    """
    root = find_checkout() or Path(str(resources.files("parity") / "resources"))
    path = root / name
    return path if path.exists() else None


def resource(name: str) -> Path:
    """Return the path of a file or folder that travels with the package.

    Raises:
        BadConfig: the package was installed without it.
    """
    path = find_resource(name)
    if path is None:
        raise BadConfig(f"{name} is missing from the installed package. Reinstall kaggle-parity.")
    return path


def resolve(path: Path) -> Path:
    """Return `path` if it exists here, else the resource of that name, else `path` unchanged."""
    if path.exists() or path.is_absolute():
        return path
    return find_resource(path.as_posix()) or path


def describe_build() -> dict[str, str]:
    """Return the commit and the digest of requirements.lock this code was built from."""
    root = find_checkout()
    if root is None:
        record = resource(_BUILD_FILE).read_text(encoding="utf-8")
        build: dict[str, str] = json.loads(record)
        return build
    command = ["git", "-c", f"safe.directory={root}", "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        commit = answer.stdout.strip() if answer.returncode == 0 else ""
    except FileNotFoundError:  # git is not installed
        commit = ""
    return {"commit": commit, "lock": digest.of_file(root / "requirements.lock")}
