"""The reader of tables of runs: any names of splits, accepted headers, one-line errors."""

from pathlib import Path

import pytest

from parity.analysis import run_table
from parity.analysis.run_table import TableRun
from parity.run.errors import BadConfig, BadData

FOLDS = (
    "run,split,epoch,cv_map25,lb_public,rows\n"
    "a,fold0,1,0.40,0.30,800\n"
    "a,fold0,2,0.45,0.35,800\n"
    "b,fold1,,0.42,,900\n"
)


def table(folder: Path, text: str, counts: dict[str, int] | None = None) -> list[TableRun]:
    path = folder / "runs.csv"
    path.write_text(text, encoding="utf-8")
    return run_table.read_runs(path, counts)


def test_splits_have_any_name_and_rows_come_from_the_table(tmp_path: Path) -> None:
    rows = table(tmp_path, FOLDS)
    assert [(row.split, row.rows, row.epoch) for row in rows] == [
        ("fold0", 800, 1),
        ("fold0", 800, 2),
        ("fold1", 900, None),
    ]
    assert [(pair.cv, pair.lb) for pair in run_table.score_pairs(rows)] == [
        (0.40, 0.30),
        (0.45, 0.35),
    ]
    assert [row.name for row in rows] == ["a e1", "a e2", "b"]


def test_row_counts_of_a_flag_win(tmp_path: Path) -> None:
    rows = table(tmp_path, FOLDS, {"fold0": 700})
    assert [row.rows for row in rows] == [700, 700, 900]


@pytest.mark.parametrize("cv", ["cv", "cv_score", "CV", "cv_map25", "cv_map@10", "cv_mrr"])
@pytest.mark.parametrize("lb", ["lb", "LB", "lb_public", "public", "Public Score"])
def test_usual_headers_of_scores_are_recognized(tmp_path: Path, cv: str, lb: str) -> None:
    (row,) = table(tmp_path, f"name,fold,{cv},{lb},n_rows\na,0,0.4,0.3,500\n")
    assert (row.run, row.split, row.cv, row.lb, row.rows) == ("a", "0", 0.4, 0.3, 500)


def test_other_columns_are_ignored(tmp_path: Path) -> None:
    text = "run,split,cv_map25,cv_recall25,lb_public,lb_private,rows,notes\na,s,.4,.9,.3,.2,9,x\n"
    (row,) = table(tmp_path, text)
    assert (row.cv, row.lb) == (0.4, 0.3)


def test_a_run_without_an_adapter_is_a_base_model(tmp_path: Path) -> None:
    text = "run,split,adapter,cv,lb,rows\na,s,false,0.2,0.2,9\nb,s,true,0.4,0.3,9\n"
    assert [row.epoch for row in table(tmp_path, text)] == [0, None]


def test_a_split_without_a_row_count_is_named(tmp_path: Path) -> None:
    text = "run,split,cv,lb\na,fold0,0.4,0.3\na,fold1,0.4,\na,none,,0.3\n"
    with pytest.raises(BadData, match=r"split fold0, fold1 is unknown .*--rows=fold0=N"):
        table(tmp_path, text)
    with pytest.raises(BadData, match=r"split fold1 is unknown"):
        table(tmp_path, text, {"fold0": 800})
    assert len(table(tmp_path, text, {"fold0": 800, "fold1": 800})) == 3


def test_a_count_for_a_split_that_the_table_does_not_have_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"--rows names fold7, .*Its splits: fold0, fold1$"):
        table(tmp_path, FOLDS, {"fold7": 800})


def test_two_counts_of_one_split_are_an_error(tmp_path: Path) -> None:
    text = FOLDS.replace("0.35,800", "0.35,700")
    with pytest.raises(BadData, match=r"split fold0 has 700 and 800 rows"):
        table(tmp_path, text)
    assert table(tmp_path, text, {"fold0": 800})[1].rows == 800


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("run,split,score,lb", r"no column for cv .* Found run, split, score, lb; wanted run, spl"),
        ("run,split,cv,private", r"no column for lb "),
        ("run,cv,lb", r"no column for split "),
        ("", r"no column for run .* Found no header"),
        ("run,split,cv_mrr,cv_recall,lb", r"columns cv_mrr, cv_recall .* could each be the cv"),
        ("run,split,cv,lb,public", r"columns lb, public .* could each be the lb"),
    ],
)
def test_a_missing_or_ambiguous_column_is_named(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(BadData, match=message):
        table(tmp_path, f"{header}\n")


def test_a_score_that_is_not_a_number_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"cv_map25 is 'high' in .*runs.csv, line 3; want a number"):
        table(tmp_path, FOLDS.replace("0.45", "high"))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"no such table of runs: .*nowhere.csv"):
        run_table.read_runs(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("option", ["fold0", "fold0=", "=8", "fold0=-1", "fold0=0", "fold0=8.5"])
def test_a_row_count_is_a_split_and_a_positive_integer(option: str) -> None:
    with pytest.raises(BadConfig, match=r"is not SPLIT=N"):
        run_table.parse_rows([option])


def test_an_adapter_that_is_scored_again_counts_once(tmp_path: Path) -> None:
    text = "run,split,cv,lb,rows\n" + "".join(
        f"{run},s,{cv},{lb},800\n"
        for run, cv, lb in (
            ("icl-r0", 0.400, 0.30),
            ("icl-r0-recheck", 0.402, 0.30),
            ("icl-r1", 0.420, 0.30),
            ("qwen-r0", 0.400, 0.30),
            ("icl-r2", 0.401, 0.31),
        )
    )
    names = [row.run for row in run_table.without_rescored(table(tmp_path, text))]
    assert names == ["icl-r0", "icl-r1", "qwen-r0", "icl-r2"]
