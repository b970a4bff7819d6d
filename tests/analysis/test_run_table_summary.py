"""The summary of a table of runs: gaps by split, contaminated scores, noise, text and JSON."""

import json
from pathlib import Path

import pytest

from parity.analysis import run_table, run_table_summary
from parity.analysis.run_table import TableRun


def table(
    folder: Path, *rows: tuple[str, str, float | str, float | str], size: int = 800
) -> list[TableRun]:
    """Return the rows of a table of runs, splits, CVs and leaderboard scores."""
    path = folder / "runs.csv"
    lines = [",".join(map(str, (*row, size))) for row in rows]
    path.write_text("\n".join(["run,split,cv,lb,rows", *lines, ""]), encoding="utf-8")
    return run_table.read_runs(path)


def similar(folder: Path, *rows: tuple[str, str, float | str, float | str]) -> list[TableRun]:
    """Return rows with gaps near 0.1 on one split, then further ones."""
    usual = [(f"r{n}", "fold0", 0.40 + n / 100, 0.30 + n / 100 + n % 2 / 100) for n in range(5)]
    return table(folder, *usual, *rows)


def test_each_split_has_its_gap_and_its_noise(tmp_path: Path) -> None:
    rows = table(
        tmp_path,
        ("a", "x", 0.4, 0.3),
        ("b", "x", 0.5, 0.3),
        ("c", "y", 0.4, 0.4),
        ("d", "y", 1, ""),
    )
    x, y = run_table_summary.split_gaps(rows)
    assert (x.split, x.pairs, x.rows) == ("x", 2, 800)
    assert (x.mean, x.smallest, x.largest) == pytest.approx((0.15, 0.1, 0.2))
    assert x.noise == pytest.approx(0.4 * (2 / 800) ** 0.5)
    assert (y.split, y.pairs, y.mean) == ("y", 1, 0)


def test_a_gap_far_beyond_the_others_looks_contaminated(tmp_path: Path) -> None:
    rows = similar(tmp_path, ("dirty", "fold0", 0.9, 0.35), ("other", "fold1", 0.41, 0.31))
    (suspect,) = run_table_summary.suspects(rows)
    assert suspect.pair.row.run == "dirty"
    assert suspect.typical == pytest.approx(0.095, abs=0.01)
    # A split with few pairs is compared with all pairs.
    rows = similar(tmp_path, ("dirty", "fold1", 0.9, 0.35))
    assert [item.pair.row.run for item in run_table_summary.suspects(rows)] == ["dirty"]


def test_gaps_within_noise_do_not_look_contaminated(tmp_path: Path) -> None:
    assert run_table_summary.suspects(similar(tmp_path, ("r9", "fold0", 0.5, 0.36))) == []
    assert run_table_summary.suspects(table(tmp_path, ("a", "s", 0.9, 0.1))) == []  # no typical gap


def test_differences_within_noise_are_counted(tmp_path: Path) -> None:
    rows = table(
        tmp_path,
        ("a", "s", 0.40, 0.30),
        ("b", "s", 0.41, 0.31),
        ("c", "s", 0.50, 0.29),
        ("d", "other", 0.50, ""),
    )
    s, other = run_table_summary.split_noise(rows)
    assert (s.close, s.compared) == (1, 3)
    assert s.noise == pytest.approx(0.02)
    assert (other.close, other.compared) == (0, 0)
    unconfirmed, risen = run_table_summary.rises(rows)
    assert [(a.row.run, b.row.run) for a, b in unconfirmed] == [("a", "c"), ("b", "c")]
    assert risen == 2


def test_the_text_fits_a_terminal_and_names_the_suspect(tmp_path: Path) -> None:
    name = "a-split-with-a-name-that-is-much-longer-than-its-column"
    rows = similar(tmp_path, ("dirty", "fold0", 0.9, 0.35), ("long", name, 0.4, 0.3))
    text = run_table_summary.text(rows, "runs.csv")
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("runs.csv: 7 rows, 7 with LB, 7 with CV and LB\n1. CV minus LB by split")
    assert "dirty on fold0: CV 0.9000, LB 0.3500, gap +0.550" in " ".join(text.split())
    assert "fold0: CVs closer than 0.020 have no order" in text


def test_a_table_without_pairs_says_so(tmp_path: Path) -> None:
    text = run_table_summary.text(table(tmp_path, ("a", "s", 0.4, "")), "small.csv")
    assert "no run has a CV and a leaderboard score" in text
    assert "fewer than 4 pairs: no typical gap" in text
    assert "no split has two CVs" in text


def test_a_machine_reads_the_summary(tmp_path: Path) -> None:
    rows = similar(tmp_path, ("dirty", "fold0", 0.9, 0.35))
    result = json.loads(json.dumps(run_table_summary.summary(rows)))
    assert (result["rows"], result["pairs"]) == (6, 6)
    assert [item["split"] for item in result["splits"]] == ["fold0"]
    assert [(item["run"], item["line"]) for item in result["contaminated"]] == [("dirty", 7)]
    assert result["noise"][0]["compared"] == 15
