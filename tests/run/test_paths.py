"""Every path of a run lies below its data folder, each noun at a place of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.run.errors import BadConfig
from parity.run.paths import RunPaths

PLACE = RunPaths(Path("data"), "first")
parts = st.sampled_from(["data", "..", ".", "runs", "first", "x.jsonl", "a b"])


def nouns(place: RunPaths) -> Iterator[Path]:
    yield from (place.ledger, place.bases, place.report, place.report_html, place.prepare)
    yield from (place.embeddings, place.taken)
    yield from (place.split("unseen-0.75-s0"), place.split("full"))
    for round_ in (0, 1, 10):
        yield from (place.stage(stage, round_) for stage in ("mine", "train", "package"))
        yield from (place.epoch(round_, 1), place.epoch(round_, 2), place.adapter(round_))
        yield from (place.evaluation(round_, label) for label in ("best", "base", "epoch-1"))


def test_no_two_nouns_share_a_place() -> None:
    assert len(set(nouns(PLACE))) == len(list(nouns(PLACE)))


def test_every_noun_lies_in_the_data_folder(tmp_path: Path) -> None:
    for path in nouns(RunPaths(tmp_path, "first")):
        assert path.is_relative_to(tmp_path)


def test_runs_share_the_ledger_the_bases_and_the_caches_alone() -> None:
    other = RunPaths(Path("data"), "second")
    shared = {PLACE.ledger, PLACE.bases, PLACE.embeddings, PLACE.taken}
    assert set(nouns(PLACE)) & set(nouns(other)) == shared


def test_there_is_no_round_below_the_first() -> None:
    for path in (PLACE.adapter, lambda round_: PLACE.epoch(round_, 1)):
        with pytest.raises(BadConfig, match="round -1 does not exist; rounds start at 0"):
            path(-1)


def test_a_manifest_names_a_file_from_the_data_folder_on(tmp_path: Path) -> None:
    place = RunPaths(tmp_path / "data", "first")
    assert place.relative(place.adapter(2)) == "runs/first/round-2/train/adapter"
    assert place.relative(place.data / "x" / ".." / "ledger.jsonl") == "ledger.jsonl"
    assert place.relative(place.data) == "."


def test_a_file_elsewhere_is_its_name_alone(tmp_path: Path) -> None:
    place = RunPaths(tmp_path / "data", "first")
    assert place.relative(tmp_path / "shared" / "train.csv") == "train.csv"
    assert place.relative(tmp_path / "data-2" / "train.csv") == "train.csv"


def test_a_link_out_of_the_data_folder_does_not_tell_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bases").symlink_to(tmp_path / "secret", target_is_directory=True)
    place = RunPaths(tmp_path / "data", "first")
    assert place.relative(place.bases / "small") == "small"


@given(st.lists(parts, max_size=5), st.booleans())
def test_no_absolute_path_is_ever_told(names: list[str], absolute: bool) -> None:
    path = Path(*names)
    told = PLACE.relative(Path.cwd() / path if absolute else path)
    assert not Path(told).is_absolute()
    assert str(Path.cwd()) not in told
