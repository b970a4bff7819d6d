"""Negatives as FlagEmbedding's training file, and back.

There a row is texts only: `query, pos, neg, prompt` and, for distillation, `pos_scores,
neg_scores`. Texts come rendered from `retrieval.prompts`; here they are only matched to ids.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from parity.competition.query import MisconceptionId, Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.run.errors import BadData, Mismatch
from parity.training.mining_strategies import sentence_keys
from parity.training.negatives import Negatives, QueryNegatives


class TrainingRow(TypedDict):
    """One line of the file; `query_instruction_format.format(prompt, query)` is what it trains on.

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
    """Negatives read from a foreign file.

    Attributes:
        negatives: without ranks, which the file does not keep.
        dropped: negatives left out: repeats, and those that say the same as a right one.
    """

    negatives: Negatives
    dropped: int


def export_rows(
    negatives: Negatives,
    qrels: Qrels,
    *,
    texts: Mapping[QueryId, str],
    passages: Mapping[MisconceptionId, str],
    instruction: str,
    ranking: Ranking | None = None,
) -> list[TrainingRow]:
    """Return the rows of FlagEmbedding's file, in the order of the negatives.

    Scores are the ranking's, or else a teacher's. They are written only where every passage of the
    file has one: FlagEmbedding wants a number for each, or no such column at all.

    Args:
        negatives: what was mined.
        qrels: the right misconceptions.
        texts: query id → rendered query, without instruction and examples.
        passages: misconception id → rendered passage.
        instruction: becomes `prompt`.
        ranking: where scores are taken from; best over the whole corpus. None asks the teacher.

    Raises:
        BadData: a query has no negative, on which FlagEmbedding divides by zero.
    """
    scores = _scores(ranking, negatives)
    rows: list[TrainingRow] = []
    complete = bool(scores)
    for mined in negatives.rows:
        if not mined.ids:
            raise BadData(f"query {mined.query_id} has no negative; mine from a larger scope")
        right, known = sorted(qrels[mined.query_id]), scores.get(mined.query_id, {})
        complete = complete and known.keys() >= {*right, *mined.ids}
        rows.append(
            {
                "query": texts[mined.query_id],
                "pos": [passages[key] for key in right],
                "neg": [passages[key] for key in mined.ids],
                "prompt": instruction,
            }
        )
    if complete:
        for mined, row in zip(negatives.rows, rows, strict=True):
            known = scores[mined.query_id]
            row["pos_scores"] = [known[key] for key in sorted(qrels[mined.query_id])]
            row["neg_scores"] = [known[key] for key in mined.ids]
    return rows


def import_rows(
    rows: Iterable[TrainingRow],
    qrels: Qrels,
    *,
    texts: Mapping[QueryId, str],
    passages: Mapping[MisconceptionId, str],
    instruction: str,
    miner: str,
) -> Imported:
    """Return the negatives of a file as `export_rows` or FlagEmbedding's own mining writes it.

    Queries of one text are told apart by their positives, then by order. A passage text that two
    ids share stands for the smaller id.

    Args:
        rows: the file's lines.
        qrels: the right misconceptions; each row's `pos` must be among them.
        texts: query id → rendered query, without instruction and examples.
        passages: misconception id → rendered passage.
        instruction: what `prompt` must be.
        miner: digest of the encoder that mined the file; empty where unknown.

    Raises:
        BadData: a missing key, a text that is no query or no passage, or scores that do not fit.
        Mismatch: another prompt, or positives that the labels do not have.
    """
    waiting: dict[str, list[QueryId]] = {}
    for query_id in texts:
        waiting.setdefault(texts[query_id], []).append(query_id)
    ids: dict[str, MisconceptionId] = {}
    for key in sorted(passages):
        ids.setdefault(passages[key], key)
    keys = sentence_keys(dict(passages))
    mined, dropped = [], 0
    for number, row in enumerate(rows, start=1):
        if missing := sorted({"query", "pos", "neg"} - row.keys()):
            raise BadData(f"row {number}: no {missing[0]!r}")
        if row.get("prompt", instruction) != instruction:
            raise Mismatch(f"row {number}: its prompt is not the run's prompt.instruction")
        right = {keys[key] for key in _ids(row["pos"], ids, number)}
        query_id = _claim(waiting.get(row["query"], []), right, qrels, keys, number)
        found = _negatives(row, ids, number)
        said = {keys[key] for key in qrels[query_id]}
        kept = {key: score for key, score in found.items() if keys[key] not in said}
        dropped += len(row["neg"]) - len(kept)
        positives = _positives(row, ids, keys, number)
        teacher = tuple(score for score in kept.values() if score is not None)
        if not positives or len(teacher) < len(kept):  # a teacher scores both or is none
            positives, teacher = {}, ()
        right_scores = tuple(
            (key, positives[keys[key]]) for key in sorted(qrels[query_id]) if keys[key] in positives
        )
        blank = (0,) * len(kept)
        mined.append(
            QueryNegatives(
                query_id, tuple(kept), blank, tuple(kept.values()), teacher, right_scores
            )
        )
    return Imported(Negatives(tuple(mined), miner, "imported"), dropped)


def _scores(
    ranking: Ranking | None, negatives: Negatives
) -> dict[QueryId, dict[MisconceptionId, float]]:
    if ranking is None:
        return {row.query_id: row.scored() for row in negatives.rows}
    return {
        query_id: dict(zip(map(MisconceptionId, ids.tolist()), scores.tolist(), strict=True))
        for query_id, ids, scores in zip(
            ranking.query_ids, ranking.ids, ranking.scores, strict=True
        )
    }


def _ids(
    sentences: Sequence[str], ids: Mapping[str, MisconceptionId], number: int
) -> list[MisconceptionId]:
    for place, sentence in enumerate(sentences):
        if sentence not in ids:
            raise BadData(f"row {number}: passage {place + 1} is no passage of this corpus")
    return [ids[sentence] for sentence in sentences]


def _claim(
    waiting: list[QueryId],
    right: set[MisconceptionId],
    qrels: Qrels,
    keys: Mapping[MisconceptionId, MisconceptionId],
    number: int,
) -> QueryId:
    """Take the first query of this text whose labels hold the row's positives."""
    if not waiting:
        raise BadData(f"row {number}: its query is none of this run's, or comes once too often")
    for query_id in waiting:
        if right and right <= {keys[key] for key in qrels[query_id]}:
            waiting.remove(query_id)
            return query_id
    raise Mismatch(f"row {number}: its positives are not the labels of query {waiting[0]}")


def _negatives(
    row: TrainingRow, ids: Mapping[str, MisconceptionId], number: int
) -> dict[MisconceptionId, float | None]:
    found = _ids(row["neg"], ids, number)
    scores: Sequence[float | None] = row.get("neg_scores") or [None] * len(found)
    if len(scores) != len(found):
        raise BadData(f"row {number}: {len(scores)} neg_scores for {len(found)} negatives")
    kept: dict[MisconceptionId, float | None] = {}
    for key, score in zip(found, scores, strict=True):
        kept.setdefault(key, score)
    return kept


def _positives(
    row: TrainingRow,
    ids: Mapping[str, MisconceptionId],
    keys: Mapping[MisconceptionId, MisconceptionId],
    number: int,
) -> dict[MisconceptionId, float]:
    """Return sentence key → its teacher's score."""
    scores = row.get("pos_scores") or []
    if scores and len(scores) != len(row["pos"]):
        raise BadData(f"row {number}: {len(scores)} pos_scores for {len(row['pos'])} positives")
    found = [keys[key] for key in _ids(row["pos"], ids, number)]
    return dict(zip(found, scores, strict=False))
