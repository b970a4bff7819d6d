"""Every path of a run is in its data folder, and no two files share a path."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.run.errors import BadConfig
from parity.run.paths import RunPaths

PATHS = RunPaths(Path("data"), "first")
parts = st.sampled_from(["data", "..", ".", "runs", "first", "x.jsonl", "a b"])


def all_paths(paths: RunPaths) -> Iterator[Path]:
    yield from (paths.ledger, paths.bases, paths.report, paths.report_html, paths.prepare)
    yield from (paths.embeddings, paths.bytes_per_token)
    yield from (paths.split("unseen-0.75-s0"), paths.split("full"))
    for round_ in (0, 1, 10):
        yield from (paths.stage(stage, round_) for stage in ("mine", "train", "package"))
        yield from (paths.epoch(round_, 1), paths.epoch(round_, 2), paths.adapter(round_))
        yield from (paths.evaluation(round_, label) for label in ("best", "base", "epoch-1"))


def test_no_two_files_share_a_path() -> None:
    assert len(set(all_paths(PATHS))) == len(list(all_paths(PATHS)))


def test_every_path_is_in_the_data_folder(tmp_path: Path) -> None:
    for path in all_paths(RunPaths(tmp_path, "first")):
        assert path.is_relative_to(tmp_path)


def test_runs_share_only_the_ledger_the_bases_and_the_caches() -> None:
    other = RunPaths(Path("data"), "second")
    shared = {PATHS.ledger, PATHS.bases, PATHS.embeddings, PATHS.bytes_per_token}
    assert set(all_paths(PATHS)) & set(all_paths(other)) == shared


def test_a_negative_round_is_refused() -> None:
    for path in (PATHS.adapter, lambda round_: PATHS.epoch(round_, 1)):
        with pytest.raises(BadConfig, match="round -1 does not exist; rounds start at 0"):
            path(-1)


def test_a_path_in_the_data_folder_is_relative_to_it(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path / "data", "first")
    assert paths.relative(paths.adapter(2)) == "runs/first/round-2/train/adapter"
    assert paths.relative(paths.data / "x" / ".." / "ledger.jsonl") == "ledger.jsonl"
    assert paths.relative(paths.data) == "."


def test_a_path_outside_the_data_folder_is_its_name(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path / "data", "first")
    assert paths.relative(tmp_path / "shared" / "train.csv") == "train.csv"
    assert paths.relative(tmp_path / "data-2" / "train.csv") == "train.csv"


def test_a_link_out_of_the_data_folder_does_not_reveal_its_target(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bases").symlink_to(tmp_path / "secret", target_is_directory=True)
    paths = RunPaths(tmp_path / "data", "first")
    assert paths.relative(paths.bases / "small") == "small"


@given(st.lists(parts, max_size=5), st.booleans())
def test_a_relative_path_is_never_absolute(names: list[str], absolute: bool) -> None:
    path = Path(*names)
    relative = PATHS.relative(Path.cwd() / path if absolute else path)
    assert not Path(relative).is_absolute()
    assert str(Path.cwd()) not in relative
