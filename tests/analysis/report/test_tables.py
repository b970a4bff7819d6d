"""Tables of scores, compared character by character."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.analysis.report.tables import scores_table
from parity.competition.scoring.bootstrap import Interval
from parity.competition.scoring.metrics import Scores, Slice
from parity.competition.scoring.row_metrics import Metric
from parity.run.errors import Mismatch

WEAK = Scores(
    metric=Metric("map", 25),
    all=Slice(200, 90, Interval(0.1352, 0.1111, 0.1617), Interval(0.425, 0.375, 0.474)),
    seen=Slice(50, 30, Interval(0.1414, 0.111, 0.173), Interval(0.437, 0.379, 0.492)),
    unseen=Slice(150, 70, Interval(0.1219, 0.0834, 0.1702), Interval(0.397, 0.322, 0.48)),
    projection=Interval(0.1265, 0.096, 0.164),
    seen_share=0.25,
)
STRONG = replace(
    WEAK,
    all=Slice(200, 90, Interval(0.99961, 0.97, 1.0), Interval(1.0, 1.0, 1.0)),
    seen=Slice(50, 30, Interval(1.0, 1.0, 1.0), Interval(1.0, 1.0, 1.0)),
    projection=Interval(0.0, 0.0, 0.0004),
)

TEXT = """\
200 rows of 90 questions, 150 of them (75 %) with an unseen label.
Intervals: 95 % over questions. Projection: 0.25 seen + 0.75 unseen MAP.

MAP@25          all             seen            unseen          projection
------------------------------------------------------------------------------
BM25            .135 .111-.162  .141 .111-.173  .122 .083-.170  .127 .096-.164
round 1, epoch 2 of 3
                1.00 .970-1.00  1.00 1.00-1.00  .122 .083-.170  .000 .000-.000

Recall@25       all             seen            unseen
--------------------------------------------------------------
BM25            .425 .375-.474  .437 .379-.492  .397 .322-.480
round 1, epoch 2 of 3
                1.00 1.00-1.00  1.00 1.00-1.00  .397 .322-.480
"""

MARKDOWN = """\
200 rows of 90 questions, 0 of them (0 %) with an unseen label. \
Intervals: 95 % over questions. Projection: 0.25 seen + 0.75 unseen MAP. \
No projection: no row is unseen.

|  | MAP@10 all | MAP@10 seen | MAP@10 unseen | MAP@10 projection \
| Recall@10 all | Recall@10 seen | Recall@10 unseen |
| --- | --: | --: | --: | --: | --: | --: | --: |
| a\\|b | .135 .111-.162 | .135 .111-.162 | - | - | .425 .375-.474 | .425 .375-.474 | - |
"""


def test_the_text_table_is_exact() -> None:
    table = scores_table([("BM25", WEAK), ("round 1, epoch 2 of 3", STRONG)], style="text")
    assert table == TEXT


def test_the_markdown_table_is_exact_and_explains_a_missing_projection() -> None:
    empty = Slice(0, 0, None, None)
    seen_only = replace(
        WEAK, metric=Metric("map", 10), seen=WEAK.all, unseen=empty, projection=None
    )
    assert scores_table([("a|b", seen_only)], style="markdown") == MARKDOWN


def test_a_table_without_seen_rows_says_so() -> None:
    unseen_only = replace(WEAK, seen=Slice(0, 0, None, None), unseen=WEAK.all, projection=None)
    assert "No projection: no row is seen." in scores_table([("x", unseen_only)], style="text")


@given(
    st.lists(st.tuples(st.text("abc ", max_size=30), st.sampled_from([WEAK, STRONG])), min_size=1)
)
def test_no_line_is_wider_than_78_columns_or_ends_in_a_space(
    rows: list[tuple[str, Scores]],
) -> None:
    titled = [(f"{name}.", scores) for name, scores in rows]
    for line in scores_table(titled, style="text").splitlines():
        assert len(line) <= 78
        assert line == line.rstrip()


@pytest.mark.parametrize(
    "other",
    [
        replace(WEAK, metric=Metric("map", 10)),
        replace(WEAK, seen_share=0.3),
        replace(WEAK, all=replace(WEAK.all, rows=80)),
        replace(WEAK, unseen=replace(WEAK.unseen, questions=69)),
    ],
)
def test_scores_of_different_rows_depths_or_shares_do_not_share_a_table(other: Scores) -> None:
    """Pitfalls 7 and 11: scores on other rows look comparable in a table and are not."""
    with pytest.raises(Mismatch, match="part and tuned differ in rows"):
        scores_table([("tuned", WEAK), ("part", other)], style="text")
