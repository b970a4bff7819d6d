"""Sections of scores in a report: every value of a table, and which row is marked."""

from dataclasses import replace
from pathlib import Path

from pipeline.run_fixture import RunFixture

from parity.analysis.report.html import ReportSection, Table
from parity.competition.scoring.bootstrap import Interval
from parity.competition.scoring.metrics import Scores, Slice
from parity.competition.scoring.row_metrics import Metric
from parity.competition.scoring.significance import Difference
from parity.pipeline.command_cores import score_sections
from parity.pipeline.evaluations import ScoredModel
from parity.pipeline.score_tables import ScoreTable
from parity.run.experiment import Run

MAP = Metric("map", 25)
NAMES = ("base", "epoch-1", "best")


def interval(value: float) -> Interval:
    return Interval(value, value - 0.1, value + 0.1)


def scores_of(value: float, *, has_unseen: bool = True) -> Scores:
    """Return scores of 9 rows: .02 more on seen rows, .04 less on unseen ones, if there are any."""
    unseen = interval(value - 0.04) if has_unseen else None
    return Scores(
        metric=MAP,
        all=Slice(9, 6, interval(value), interval(value)),
        seen=Slice(6, 4, interval(value + 0.02), interval(value)),
        unseen=Slice(3 if has_unseen else 0, 2, unseen, unseen),
        projection=interval(value - 0.03) if has_unseen else None,
        seen_share=0.25,
    )


def scored(run: Run, name: str, scores: Scores) -> ScoredModel:
    return ScoredModel(run, name, name, Path(), scores, {}, frozenset())


def difference(value: float, *, projection: float | None) -> Difference:
    projected = interval(projection) if projection is not None else None
    return Difference(MAP, 9, 6, interval(value), None, None, projected, identical=False)


def table_of(run: Run, *values: float) -> ScoreTable:
    """Return a table of models with these scores; the first one is the reference."""
    models = [
        scored(run, name, scores_of(value))
        for name, value in zip(NAMES[: len(values)], values, strict=True)
    ]
    gains = [difference(v - values[0], projection=v - values[0] + 0.01) for v in values[1:]]
    return ScoreTable(tuple(models), (None, *gains))


def only_table(section: ReportSection) -> Table:
    (block,) = section.blocks
    assert isinstance(block, Table)
    return block


def test_the_row_of_a_model_has_its_split_rows_scores_and_difference(
    small_run: RunFixture,
) -> None:
    table = only_table(score_sections.evaluations([table_of(small_run.open(), 0.3, 0.5, 0.4)]))
    assert table.head == (
        *("model", "split", "rows", "all", "seen", "unseen", "projection", "difference"),
    )
    assert table.rows == (
        (
            *("base", "random-s0-v0.4", "9", "0.3000 0.200-0.400", "0.3200 0.220-0.420"),
            *("0.2600 0.160-0.360", "0.2700 0.170-0.370", "-"),
        ),
        (
            *("epoch-1*", "random-s0-v0.4", "9", "0.5000 0.400-0.600", "0.5200 0.420-0.620"),
            *("0.4600 0.360-0.560", "0.4700 0.370-0.570", "+0.2100 (+0.1100 to +0.3100)"),
        ),
        (
            *("best", "random-s0-v0.4", "9", "0.4000 0.300-0.500", "0.4200 0.320-0.520"),
            *("0.3600 0.260-0.460", "0.3700 0.270-0.470", "+0.1100 (+0.0100 to +0.2100)"),
        ),
    )


def test_the_best_model_of_each_table_is_marked_unless_it_is_the_only_one(
    small_run: RunFixture,
) -> None:
    run = small_run.open()
    tables = [table_of(run, 0.3, 0.5, 0.4), table_of(run, 0.9), table_of(run, 0.2, 0.1)]
    table = only_table(score_sections.evaluations(tables))
    names = [row[0] for row in table.rows]
    assert names == ["base", "epoch-1*", "best", "base", "base*", "epoch-1"]
    assert table.marks == ("", "equal", "", "", "equal", "")


def test_without_a_projection_the_difference_is_of_all_rows(small_run: RunFixture) -> None:
    run = small_run.open()
    models = tuple(
        scored(run, name, scores_of(value, has_unseen=False))
        for name, value in (("base", 0.4), ("best", 0.3))
    )
    score_table = ScoreTable(models, (None, difference(-0.1, projection=None)))
    first, second = only_table(score_sections.evaluations([score_table])).rows
    assert first[0] == "base*"
    assert second[-3:] == ("-", "-", "-0.1000 (-0.2000 to +0.0000)")


def test_without_a_score_the_section_has_no_table() -> None:
    section = score_sections.evaluations([])
    assert section == ReportSection(
        "evaluations", "Models and evaluations", ("No clean and current score yet.",)
    )


def test_a_model_that_ranks_unseen_labels_worse_than_the_base_model_is_named(
    small_run: RunFixture,
) -> None:
    table = table_of(small_run.open(), 0.3, 0.5, 0.4)
    assert len(score_sections.evaluations([table]).lines) == 1
    first, second, third = table.differences
    assert second is not None
    lower = replace(second, unseen=interval(-0.05))
    section = score_sections.evaluations([replace(table, differences=(first, lower, third))])
    (line,) = section.lines[1:]
    assert line.startswith("epoch-1: 0.0500 below the base model on unseen labels (-0.1500 to ")


def test_the_main_scores_are_a_table_below_the_lines_that_were_given() -> None:
    lines = ("left out as stale: round-0/best",)
    empty = score_sections.scored("scores", "Scores", [], lines)
    assert empty == ReportSection("scores", "Scores", (*lines, "No score yet."))
    section = score_sections.scored("scores", "Scores", [("round 0", scores_of(0.5))], lines)
    assert section.lines[-1:] == lines
    table = only_table(section)
    assert (table.head[0], table.caption) == ("scored", "Scores")
    assert [row[:2] for row in table.rows] == [("round 0", ".500 .400-.600")]
