"""Kaggle's submission.csv: for every row of the sample, 25 distinct known ids, best first."""

import csv
import io
import re
from collections.abc import Collection, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np

from parity.competition import csv_reader
from parity.competition.eedi.kaggle_files import PREDICTED, ROW, SUBMISSION_COLUMNS
from parity.competition.query import MisconceptionId, QueryId
from parity.competition.ranking import Ranking
from parity.run import digest, files
from parity.run.errors import BadData, Mismatch

NAME = "submission.csv"
"""What Kaggle wants the file to be called."""
K = 25
"""Ids a row; all of them where the corpus holds fewer."""
_ID = "(?:0|[1-9][0-9]{0,17})"  # 18 digits still fit an int64
_IDS = re.compile(f"{_ID}(?: {_ID})*")


def write(
    path: Path, ranking: Ranking, sample: Sequence[QueryId], corpus: Collection[MisconceptionId]
) -> str:
    """Write the submission, read it back, check it again, and return its sha256.

    Args:
        path: the CSV to write; whatever is wrong leaves it unwritten.
        ranking: at least the rows of `sample`, `K` or more ids each.
        sample: the rows of sample_submission.csv, in its order.
        corpus: the ids that exist.

    Raises:
        Mismatch: the ranking lacks a row or an id.
        BadData: what was written does not pass `check`.
    """
    place = {query_id: row for row, query_id in enumerate(ranking.query_ids)}
    if missing := [query_id for query_id in sample if query_id not in place]:
        raise Mismatch(
            f"{len(missing)} rows of the sample are not ranked (first: {missing[0]}); "
            "run: invoke predict"
        )
    width = min(K, len(corpus))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SUBMISSION_COLUMNS)
    for query_id in sample:
        ids = ranking.ids[place[query_id], :width].tolist()
        writer.writerow((query_id, " ".join(map(str, ids))))
    with files.replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
        check(read(temporary), sample, corpus)
    return digest.of_file(path)


def read(path: Path) -> Ranking:
    """Read a submission; its scores are the negated ranks, for a CSV holds none.

    Raises:
        BadData: names the file, row and column of what is wrong.
    """
    sheet = csv_reader.read(path, SUBMISSION_COLUMNS)
    csv_reader.only(sheet, SUBMISSION_COLUMNS)
    rows: list[list[int]] = []
    for place, cell in enumerate(sheet.columns[PREDICTED]):
        if _IDS.fullmatch(cell) is None:
            raise sheet.fault(PREDICTED, place, "wants ids with one space between them")
        rows.append([int(word) for word in cell.split(" ")])
        if len(rows[-1]) != len(rows[0]):
            raise sheet.fault(PREDICTED, place, f"{len(rows[-1])} ids, row 1 has {len(rows[0])}")
    ids = np.array(rows, dtype=np.int64)
    scores = np.broadcast_to(-np.arange(ids.shape[1], dtype=np.float32), ids.shape)
    return Ranking(tuple(QueryId(name) for name in sheet.columns[ROW]), ids, scores)


def check(
    submitted: Ranking, sample: Sequence[QueryId], corpus: Collection[MisconceptionId]
) -> None:
    """Check a submission as Kaggle's scorer would, and stricter.

    Raises:
        BadData: other rows or another order than the sample's, or a row without `K` distinct
            known ids.
    """
    pairs = zip_longest(submitted.query_ids, sample, fillvalue="nothing")
    for row, (found, wanted) in enumerate(pairs, start=1):
        if found != wanted:
            raise BadData(f"submission, row {row}: {found} where the sample has {wanted}")
    width = min(K, len(corpus))
    known = frozenset(corpus)
    for query_id, ids in zip(submitted.query_ids, submitted.ids.tolist(), strict=True):
        if len(set(ids)) != width or len(ids) != width:
            raise BadData(f"submission, row {query_id}: wants {width} distinct ids")
        if strange := sorted(set(ids) - known):
            raise BadData(f"submission, row {query_id}: no misconception {strange[0]}")
