"""A bench for each test: a small run with nothing done yet, or with round 0 done up to predict."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench


@pytest.fixture(scope="session")
def _blank(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    source = benches.write_competition(folder / "competition")
    return Bench(folder, source, benches.write_base(folder / "base"))


@pytest.fixture(scope="session")
def _made(_blank: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = replace(_blank, folder=tmp_path_factory.mktemp("made"))
    bench.write()
    with benches.working_in(bench):
        bench.make("prepare", "mine", "train", "eval", "predict")
    return bench


@pytest.fixture
def bench(_blank: Bench, tmp_path: Path) -> Iterator[Bench]:
    """Work in a folder with a run file, `small.toml`, of which nothing is done."""
    mine = replace(_blank, folder=tmp_path)
    mine.write()
    with benches.working_in(mine):
        yield mine


@pytest.fixture
def made(_made: Bench, tmp_path: Path) -> Iterator[Bench]:
    """Work in a folder with a run file, `small.toml`, whose round 0 is done up to predict."""
    with benches.working_in_a_copy(_made, tmp_path) as mine:
        yield mine
