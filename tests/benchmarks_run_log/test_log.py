"""The rules that find contaminated, broken and noisy scores in the diary's log."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.run_log import log, log_pairs
from parity.run.errors import BadData

HEAD = (
    "run,split,round,epoch,examples,adapter,quantised,train_scope,"
    "cv_map25,cv_recall25,lb_public,lb_private,notes,source"
)


def table(folder: Path, *rows: Mapping[str, str]) -> list[log.LoggedRun]:
    """Return the rows of a log with these cells; the defaults are those of a tuned row of v3."""
    defaults = {"split": "v3", "round": "0", "epoch": "1", "adapter": "true", "quantised": "false"}
    names = HEAD.split(",")
    lines = [",".join({**defaults, **row}.get(name, "") for name in names) for row in rows]
    path = folder / "runs.csv"
    path.write_text("\n".join([HEAD, *lines, ""]), encoding="utf-8")
    return log.read_log(path)


def row(run: str, cv: str = "", lb: str = "", **cells: str) -> dict[str, str]:
    return {"run": run, "cv_map25": cv, "lb_public": lb, **cells}


def test_a_row_is_contaminated_by_its_mark_or_its_note(tmp_path: Path) -> None:
    rows = table(
        tmp_path,
        row("icl-a-x", "0.44"),
        row("icl-a-POLLUTED", "0.6"),
        row("icl-b-x", "0.6", notes="77.5% of v3 val questions are in v4 train"),
        row("icl-c-x", "0.45", notes="batch 8"),
    )
    assert [item.contaminated for item in rows] == [False, True, True, False]
    assert [item.run for item in log.usable(rows)] == ["icl-a-x", "icl-c-x"]
    result = {item.run: (round(by, 3), name) for item, by, name in log.excess(rows)}
    assert result == {
        "icl-a-POLLUTED": (0.155, "clean scores"),
        "icl-b-x": (0.155, "clean scores"),
    }
    assert log.trained_on(rows[2]) == "77.5"
    assert log.trained_on(rows[1]) == ""


def test_a_contaminated_score_is_compared_with_its_public_score(tmp_path: Path) -> None:
    rows = table(
        tmp_path, row("icl-a-x", "0.45", "0.30"), row("sfr-lora-POLLUTED", "0.874", "0.353")
    )
    ((item, by, reference),) = log.excess(rows)
    assert (item.run, round(by, 3)) == ("sfr-lora-POLLUTED", 0.521)
    assert reference == "its LB (widest clean gap 0.150)"


def test_a_score_far_below_its_variants_is_broken(tmp_path: Path) -> None:
    rows = table(
        tmp_path,
        row("q-fix-merged", "0.45"),
        row("q-fix-lost", "0.002"),
        row("q-fix-weak", "0.40"),
        row("q-old-merged", "0.45"),
        row("q-old-4bit", "0.034", notes="merged into 4-bit weights"),
        row("q-fix-lost", "0.01", epoch="2"),
        row("q-bare", "0.0019", adapter="false", epoch=""),
    )
    result = {item.name: best.run for item, best in log.broken(rows)}
    assert result == {"q-fix-lost e1": "q-fix-merged", "q-old-4bit e1": "q-old-merged"}
    base = log.base_of(rows, rows[1])
    assert base is not None
    assert base.run == "q-bare"
    assert log.base_of(rows, rows[4]) is None  # beyond rounding and sampling


def test_answers_in_prompts_raise_a_score_by_a_bounded_amount(tmp_path: Path) -> None:
    rows = table(tmp_path, row("icl-a-x", "0.4", notes="216 of 864 val rows themselves"))
    ((item, bound),) = log.leaked_answers(rows)
    assert item == rows[0]
    assert bound == pytest.approx(0.25 * 0.6)


def test_noise_follows_from_the_number_of_rows() -> None:
    assert log.error(864) == pytest.approx(0.0136, abs=5e-5)
    assert log.noise(864) == pytest.approx(0.0192, abs=5e-5)


def test_seen_and_unseen_scores_give_both_numbers() -> None:
    seen, unseen = log_pairs.solve_seen_unseen(0.4714, 0.304, "v2")
    assert 0.634 * seen + 0.366 * unseen == pytest.approx(0.4714)
    assert 0.25 * seen + 0.75 * unseen == pytest.approx(0.304)
    assert log_pairs.projected(0.4714, "v2", unseen) == pytest.approx(0.304)


def test_a_pair_agrees_where_tuning_improved_seen_rows_only(tmp_path: Path) -> None:
    rows = table(
        tmp_path,
        row("icl-bare", "0.215", "0.21", adapter="false", epoch="0"),
        row("icl-a-x", "0.47", "0.301"),
        row("icl-b-x", "0.47", "0.36"),
    )
    expected = log_pairs.expected(rows, rows[1])
    assert expected == pytest.approx(0.25 * (0.47 - 0.258 * 0.21) / 0.742 + 0.75 * 0.21)
    assert [log_pairs.agrees(rows, pair) for pair in log.pairs(rows)] == [True, True, False]
    assert set(log_pairs.trainings(rows)) == {"bge-icl v3 untuned", "bge-icl v3 round 0"}


def test_public_scores_within_an_error_are_one_value(tmp_path: Path) -> None:
    values = ("0.303", "0.316", "0.318", "0.321", "0.327")
    rows = table(tmp_path, *(row(f"icl-{n}-x", "0.45", lb) for n, lb in enumerate(values)))
    groups = [[item.lb for item in group] for group in log_pairs.plateaus(rows)]
    assert groups == [[0.316, 0.318, 0.321], [0.303], [0.327]]


def test_rises_of_cv_are_grouped_by_the_leaderboard(tmp_path: Path) -> None:
    rows = table(
        tmp_path,
        row("icl-a-x", "0.43", "0.316"),
        row("icl-a-x", "0.47", "0.318", epoch="3"),
        row("icl-a-x", "0.475", "0.388", epoch="4"),
    )
    confirmed, unconfirmed = log_pairs.rises(rows)
    assert [(a.epoch, b.epoch) for a, b in confirmed] == [("1", "4")]
    assert [(a.epoch, b.epoch) for a, b in unconfirmed] == [("1", "3")]
    assert [(a.epoch, b.epoch) for a, b in log_pairs.steps(rows)] == [("3", "4")]


def test_variants_are_those_of_one_family_split_round_and_epoch(tmp_path: Path) -> None:
    many = [row(f"icl-lora-r{n}", "0.45") for n in range(5)]
    rows = table(tmp_path, *many, row("icl-lora-r9", "0.45", epoch="2"), row("icl-other", "0.45"))
    (group,) = log_pairs.tables(rows)
    assert {item.run for item in group} == {item["run"] for item in many}
    assert log_pairs.tables(rows[1:]) == []


def test_scores_from_training_and_duplicates_are_found(tmp_path: Path) -> None:
    rows = table(
        tmp_path,
        row("icl-a-x", "0.4563", notes="merged; in-training value 0.4714", cv_recall25="0.9"),
        row("icl-b-x", "0.4563", cv_recall25="0.9"),
        row("icl-c-x", "0.4563", cv_recall25="0.8"),
    )
    assert log_pairs.rescored(rows) == [(rows[0], 0.4714)]
    assert log_pairs.duplicates(rows) == [rows[:2]]


def test_a_reranker_is_not_a_pair(tmp_path: Path) -> None:
    rows = table(tmp_path, row("pipe-iter0-rerank", "0.54", "0.50"), row("icl-a-x", "0.47", "0.3"))
    assert [pair.run for pair in log.pairs(rows)] == ["icl-a-x"]


def test_another_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("run,split\na,v1\n")
    with pytest.raises(BadData, match=r"no column round in .*; the run log has run, split"):
        log.read_log(path)
    with pytest.raises(BadData, match=r"could not convert .*; a score is a number or empty"):
        table(tmp_path, row("a", "much"))
