"""Conversion of negatives to and from FlagEmbedding's training file.

A row of the file has only texts: `query, pos, neg, prompt` and, for distillation, `pos_scores,
neg_scores`. `retrieval.prompts` renders the texts; this module matches them to ids.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from parity.competition.query import Position, Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.run.errors import BadData, Mismatch
from parity.training.mining_strategies import sentence_keys
from parity.training.negatives import Negatives, QueryNegatives


class TrainingRow(TypedDict):
    """One line of the file; training uses `query_instruction_format.format(prompt, query)`.

    Source: FlagOpen/FlagEmbedding: FlagEmbedding/abc/finetune/embedder/AbsDataset.py.
    """

    query: str
    pos: list[str]
    neg: list[str]
    prompt: str
    pos_scores: NotRequired[list[float]]
    neg_scores: NotRequired[list[float]]


@dataclass(frozen=True, slots=True)
class Imported:
    """Negatives read from a file of FlagEmbedding.

    Attributes:
        negatives: negatives without ranks, which the file does not have.
        dropped: number of negatives left out: repeats, and those with the text of a positive.
    """

    negatives: Negatives
    dropped: int


def export_rows(
    negatives: Negatives,
    qrels: Qrels,
    *,
    texts: Mapping[QueryId, str],
    passages: Mapping[Position, str],
    instruction: str,
    ranking: Ranking | None = None,
) -> list[TrainingRow]:
    """Return the rows of FlagEmbedding's file, in the order of the negatives.

    Scores come from the ranking, or from a teacher. They are written only if every passage of the
    file has a score, because FlagEmbedding requires a number for each passage or no such column.

    Args:
        negatives: mined negatives.
        qrels: positives of each query.
        texts: query id → rendered query, without instruction and examples.
        passages: position → rendered passage.
        instruction: text of `prompt`.
        ranking: source of the scores, best over the entire corpus; None uses the teacher's scores.

    Raises:
        BadData: a query has no negatives, which makes FlagEmbedding divide by zero.
    """
    scores = _scores(ranking, negatives)
    rows: list[TrainingRow] = []
    complete = bool(scores)
    for mined in negatives.rows:
        if not mined.positions:
            raise BadData(f"query {mined.query_id} has no negatives. Mine from a larger scope")
        right, score_of = sorted(qrels[mined.query_id]), scores.get(mined.query_id, {})
        complete = complete and score_of.keys() >= {*right, *mined.positions}
        rows.append(
            {
                "query": texts[mined.query_id],
                "pos": [passages[key] for key in right],
                "neg": [passages[key] for key in mined.positions],
                "prompt": instruction,
            }
        )
    if complete:
        for mined, row in zip(negatives.rows, rows, strict=True):
            score_of = scores[mined.query_id]
            row["pos_scores"] = [score_of[key] for key in sorted(qrels[mined.query_id])]
            row["neg_scores"] = [score_of[key] for key in mined.positions]
    return rows


def import_rows(
    rows: Iterable[TrainingRow],
    qrels: Qrels,
    *,
    texts: Mapping[QueryId, str],
    passages: Mapping[Position, str],
    instruction: str,
    miner: str,
) -> Imported:
    """Return the negatives of a file that `export_rows` or FlagEmbedding's mining wrote.

    Queries with equal texts are distinguished by their positives, then by order. A text that two
    passages share is matched to the first of them.

    Args:
        rows: lines of the file.
        qrels: positives of each query; they must include each row's `pos`.
        texts: query id → rendered query, without instruction and examples.
        passages: position → rendered passage.
        instruction: expected text of `prompt`.
        miner: digest of the encoder that mined the file; empty if unknown.

    Raises:
        BadData: a missing key, an unknown query or passage, or a wrong number of scores.
        Mismatch: another prompt, or positives that are not labels of the query.
    """
    waiting: dict[str, list[QueryId]] = {}
    for query_id in texts:
        waiting.setdefault(texts[query_id], []).append(query_id)
    ids: dict[str, Position] = {}
    for key in sorted(passages):
        ids.setdefault(passages[key], key)
    keys = sentence_keys(dict(passages))
    mined, dropped = [], 0
    for number, row in enumerate(rows, start=1):
        if missing := sorted({"query", "pos", "neg"} - row.keys()):
            raise BadData(f"row {number}: key {missing[0]!r} is missing")
        if row.get("prompt", instruction) != instruction:
            raise Mismatch(f"row {number}: the prompt is not the run's prompt.instruction")
        right = {keys[key] for key in _ids(row["pos"], ids, number)}
        query_id = _claim(waiting.get(row["query"], []), right, qrels, keys, number)
        scores = _negatives(row, ids, number)
        right_keys = {keys[key] for key in qrels[query_id]}
        chosen = {key: score for key, score in scores.items() if keys[key] not in right_keys}
        dropped += len(row["neg"]) - len(chosen)
        positives = _positives(row, ids, keys, number)
        teacher = tuple(score for score in chosen.values() if score is not None)
        if not positives or len(teacher) < len(chosen):  # teacher scores need both columns
            positives, teacher = {}, ()
        right_scores = tuple(
            (key, positives[keys[key]]) for key in sorted(qrels[query_id]) if keys[key] in positives
        )
        ranks = (0,) * len(chosen)
        mined.append(
            QueryNegatives(
                query_id, tuple(chosen), ranks, tuple(chosen.values()), teacher, right_scores
            )
        )
    return Imported(Negatives(tuple(mined), miner, "imported"), dropped)


def _scores(ranking: Ranking | None, negatives: Negatives) -> dict[QueryId, dict[Position, float]]:
    if ranking is None:
        return {row.query_id: row.scored() for row in negatives.rows}
    return {
        query_id: dict(zip(map(Position, ids.tolist()), scores.tolist(), strict=True))
        for query_id, ids, scores in zip(
            ranking.query_ids, ranking.positions, ranking.scores, strict=True
        )
    }


def _ids(sentences: Sequence[str], ids: Mapping[str, Position], number: int) -> list[Position]:
    for index, sentence in enumerate(sentences):
        if sentence not in ids:
            raise BadData(f"row {number}: passage {index + 1} is not in the corpus")
    return [ids[sentence] for sentence in sentences]


def _claim(
    waiting: list[QueryId],
    right: set[Position],
    qrels: Qrels,
    keys: Mapping[Position, Position],
    number: int,
) -> QueryId:
    """Remove and return the first query of this text whose labels include the row's positives."""
    if not waiting:
        raise BadData(f"row {number}: the query is not in this run, or it occurs too often")
    for query_id in waiting:
        if right and right <= {keys[key] for key in qrels[query_id]}:
            waiting.remove(query_id)
            return query_id
    raise Mismatch(f"row {number}: the positives are not labels of query {waiting[0]}")


def _negatives(
    row: TrainingRow, ids: Mapping[str, Position], number: int
) -> dict[Position, float | None]:
    positions = _ids(row["neg"], ids, number)
    scores: Sequence[float | None] = row.get("neg_scores") or [None] * len(positions)
    if len(scores) != len(positions):
        raise BadData(f"row {number}: {len(scores)} neg_scores for {len(positions)} negatives")
    score_of: dict[Position, float | None] = {}
    for key, score in zip(positions, scores, strict=True):
        score_of.setdefault(key, score)
    return score_of


def _positives(
    row: TrainingRow,
    ids: Mapping[str, Position],
    keys: Mapping[Position, Position],
    number: int,
) -> dict[Position, float]:
    """Return the teacher's score of each sentence key."""
    scores = row.get("pos_scores") or []
    if scores and len(scores) != len(row["pos"]):
        raise BadData(f"row {number}: {len(scores)} pos_scores for {len(row['pos'])} positives")
    right_keys = [keys[key] for key in _ids(row["pos"], ids, number)]
    return dict(zip(right_keys, scores, strict=False))
