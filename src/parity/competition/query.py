"""Queries and qrels: one query for each question × wrong answer."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NewType

from parity.run import files

QueryId = NewType("QueryId", str)
MisconceptionId = NewType("MisconceptionId", int)
Corpus = dict[MisconceptionId, str]
"""Misconception id → sentence, in ascending order of id. Two ids may share a sentence."""
Qrels = dict[QueryId, frozenset[MisconceptionId]]
"""Query id → the right misconceptions; only labeled queries have a row."""

ANSWERS = ("A", "B", "C", "D")


@dataclass(frozen=True, slots=True)
class Query:
    """One question with one wrong answer.

    Attributes:
        query_id: `QuestionId_Answer`, as in the submission.
        correct: text of the right answer.
        wrong: text of the wrong answer that `answer` names.
    """

    query_id: QueryId
    question_id: int
    answer: str
    construct_id: int
    construct: str
    subject_id: int
    subject: str
    question: str
    correct: str
    wrong: str


def write_queries(path: Path, queries: list[Query]) -> None:
    """Write `queries.jsonl`, one query a line, in the given order."""
    files.write_jsonl(path, (asdict(query) for query in queries))


def read_queries(path: Path) -> list[Query]:
    """Read what `write_queries` wrote."""
    return [Query(**row) for row in files.read_jsonl(path)]


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Write `qrels.jsonl`: query id and its right ids in ascending order."""
    files.write_jsonl(
        path, ({"query_id": key, "misconception_ids": sorted(ids)} for key, ids in qrels.items())
    )


def read_qrels(path: Path) -> Qrels:
    """Read what `write_qrels` wrote."""
    return {
        QueryId(row["query_id"]): frozenset(map(MisconceptionId, row["misconception_ids"]))
        for row in files.read_jsonl(path)
    }
