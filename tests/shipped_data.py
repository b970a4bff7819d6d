"""The synthetic competitions for tests: the tracked folders, or the same bytes generated again."""

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import pytest

from parity.competition.synthetic import generator

DATA = Path(__file__).parents[1] / "data"


@lru_cache
def synthetic_folder() -> Path:
    """Return a folder with the synthetic competition's files, also in a clone without `data/`."""
    if (DATA / "synthetic").is_dir():
        return DATA / "synthetic"
    folder = Path(tempfile.mkdtemp(prefix="synthetic-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, text in generator.generate(generator.SEED).items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder


def tracked_folder(name: str) -> Path:
    """Return a tracked folder of `data/`; skip the test in a clone without it."""
    if not (DATA / name).is_dir():
        pytest.skip(f"this clone has no data/{name} to compare with the generator")
    return DATA / name
