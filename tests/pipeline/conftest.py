"""A small run for each test: with no stage done, or with round 0 done up to predict."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture


@pytest.fixture(scope="session")
def _empty_run(tmp_path_factory: pytest.TempPathFactory) -> RunFixture:
    folder = tmp_path_factory.mktemp("empty")
    source = run_fixture.write_competition(folder / "competition")
    return RunFixture(folder, source, run_fixture.write_base(folder / "base"))


@pytest.fixture(scope="session")
def _predicted_run(_empty_run: RunFixture, tmp_path_factory: pytest.TempPathFactory) -> RunFixture:
    small_run = replace(_empty_run, folder=tmp_path_factory.mktemp("predicted"))
    small_run.write_config()
    with run_fixture.working_in(small_run):
        small_run.run_stages("prepare", "mine", "train", "eval", "predict")
    return small_run


@pytest.fixture
def small_run(_empty_run: RunFixture, tmp_path: Path) -> Iterator[RunFixture]:
    """Work in a folder with a run file, `small.toml`, and no stage done."""
    fixture = replace(_empty_run, folder=tmp_path)
    fixture.write_config()
    with run_fixture.working_in(fixture):
        yield fixture


@pytest.fixture
def predicted_run(_predicted_run: RunFixture, tmp_path: Path) -> Iterator[RunFixture]:
    """Work in a folder with a run file, `small.toml`, whose round 0 is done up to predict."""
    with run_fixture.working_in_a_copy(_predicted_run, tmp_path) as copy:
        yield copy
