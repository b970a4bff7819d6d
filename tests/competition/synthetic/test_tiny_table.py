"""The second shipped competition: its bytes and its shape."""

from pathlib import Path

from shipped_data import tracked_folder

from parity.competition.kinds import competition_of
from parity.competition.synthetic import tiny_table
from parity.run.config import run_file

ROOT = Path(__file__).parents[3]
CONFIG = run_file.load(ROOT / "runs" / "tiny-table.toml")


def test_the_shipped_files_are_those_of_the_seed(tmp_path: Path) -> None:
    shipped = tracked_folder("tiny-table")
    tiny_table.main([str(tmp_path)])
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (shipped / path.name).read_bytes(), path.name


def test_it_has_text_ids_several_labels_and_units_of_several_rows(tmp_path: Path) -> None:
    tiny_table.main([str(tmp_path)])
    data = competition_of(CONFIG.competition).read(tmp_path)
    assert data.corpus.ids == tuple(sorted(data.corpus.ids))
    assert {len(positions) for positions in data.qrels.values()} == {1, 2, 3}
    assert max(query.unit_size for query in data.queries) > 2
    assert {query.topic for query in data.queries} == {query.topic for query in data.test}


def test_no_customer_is_in_both_files(tmp_path: Path) -> None:
    tiny_table.main([str(tmp_path)])
    data = competition_of(CONFIG.competition).read(tmp_path)
    assert not {query.unit for query in data.queries} & {query.unit for query in data.test}


def test_another_seed_writes_another_competition() -> None:
    assert tiny_table.generate(0) == tiny_table.generate(0)
    assert tiny_table.generate(1) != tiny_table.generate(0)
