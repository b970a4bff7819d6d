"""Compare what two measurements computed: embeddings, rankings, submissions, scores.

A difference is noise if rounding explains it: embeddings within a bound set by the precision, and
ranked passages that swap only where their scores are closer than the drift of the embeddings.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from parity.analysis.compare import layer_values
from parity.analysis.compare.embedding_faults import find_cause
from parity.analysis.compare.evidence_record import Artifacts, EvidenceRecord
from parity.competition.query import Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring import significance
from parity.competition.scoring.row_metrics import metric_of
from parity.deploy.kernel.image_comparison import NEAR, cosines, overlaps
from parity.run import ledger

State = Literal["equal", "unknown", "near", "differs"]
BOUNDS = {"float32": NEAR, "float16": 5e-4, "bfloat16": 5e-3}
"""Largest distance from 1 of the cosine of two embeddings of one text, by the coarser dtype.

Measured against fp32 on the demo's adapter (12 layers, 64 prompts): 1.6e-5 in fp16, 6.4e-4 in bf16;
the base model is at cosine 0.97. Deeper models round more often, hence the margin.
"""
_TIES = 2e-5  # fp32 scores this close can swap: each moves by at most 1e-5
_MIN_OVERLAP = 0.9  # mean share of a row's ids that two noisy rankings have in common
_SCORE_TOLERANCE = 1e-9
_BETTER = {"a is better": "A is better", "b is better": "B is better"}
Vectors = NDArray[np.float32]
"""(n, d) float32, a row for each prompt of the probe."""


@dataclass(frozen=True, slots=True)
class LayerDiff:
    """The comparison of one layer.

    Attributes:
        state: `near` is a difference within noise.
        lines: details in terms of the layer.
        is_conclusive: whether the layer itself shows what went wrong.
    """

    state: State
    lines: tuple[str, ...] = ()
    is_conclusive: bool = False


@dataclass(frozen=True, slots=True)
class _Swaps:
    """Ranks at which two rankings of the same queries differ.

    Attributes:
        ranks: number of ranks that differ.
        rows: number of queries with such a rank.
        beyond: number of ranks whose scores differ by more than the margin.
        first: first query with such a rank.
    """

    ranks: int
    rows: int
    beyond: int
    first: QueryId | None


def bound(a: EvidenceRecord, b: EvidenceRecord) -> float:
    """Return the largest distance of a cosine from 1 that rounding explains.

    A quantized model is another model: compared with a full one, the bound is that of fp32.
    """
    precisions = [record.evidence.layers.get("precision") or "float32/none" for record in (a, b)]
    dtypes, bits = zip(*(value.partition("/")[::2] for value in precisions), strict=True)
    if bits[0] != bits[1]:
        return NEAR
    return max(BOUNDS.get(dtype, NEAR) for dtype in dtypes)


def embeddings(a: EvidenceRecord, b: EvidenceRecord) -> LayerDiff:
    """Compare embeddings of the probe: digests first, then cosines against the bound."""
    if by_digest := _by_digest(a, b, "embeddings"):
        return by_digest
    if a.vectors is None or b.vectors is None:
        return _without_vectors(a, b)
    if a.vectors.shape != b.vectors.shape:
        return LayerDiff("differs", (f"sizes {a.vectors.shape} and {b.vectors.shape}",))
    similarities = cosines(a.vectors, b.vectors)  # (n,)
    lowest, limit = float(similarities.min(initial=1.0)), bound(a, b)
    lines = [_cosine_line(a, similarities, limit)]
    if np.array_equal(a.vectors, b.vectors):
        lines = ["prompt embeddings are bitwise equal; corpus embeddings differ"]
    if 1 - lowest <= limit:
        return LayerDiff("near", tuple(lines))
    cause = find_cause(a, b)
    return LayerDiff("differs", (*lines, *cause), is_conclusive=bool(cause))


def ranking(a: EvidenceRecord, b: EvidenceRecord, artifacts: Artifacts) -> LayerDiff:
    """Compare rankings of the probe: swaps that the drift explains, and swaps beyond it."""
    if by_digest := _by_digest(a, b, "ranking"):
        return by_digest
    if a.probe is None or b.probe is None:
        return LayerDiff("unknown", ("a ranking is missing here: swaps cannot be counted",))
    if set(a.probe.query_ids) != set(b.probe.query_ids):
        return LayerDiff("differs", ("the probes have different rows",))
    aligned = b.probe.of(a.probe.query_ids)
    margin = _margin(a, b)
    swaps = _count_swaps(a.probe, aligned, margin)
    overlap = float(np.mean(overlaps(a.probe.positions, aligned.positions)))
    lines = [
        f"{swaps.ranks} ranks in {swaps.rows} of {len(aligned.query_ids)} rows differ, "
        f"{swaps.beyond} of them by more than the margin {margin:.2g}; "
        f"overlap@{a.probe.positions.shape[1]} {overlap:.4f}"
    ]
    if swaps.beyond:
        lines.append(f"first beyond the margin: {swaps.first}")
        lines += reordered(a.probe, aligned)
    lines += paired(a.probe, aligned, artifacts, rows="the probe, which is not a CV")
    is_noise = not swaps.beyond and overlap >= _MIN_OVERLAP
    return LayerDiff("near" if is_noise else "differs", tuple(lines))


def submission(a: EvidenceRecord, b: EvidenceRecord, noise: State) -> LayerDiff:
    """Compare submissions; ids may change if embeddings did so within bounds (`noise`)."""
    if by_digest := _by_digest(a, b, "submission"):
        return by_digest
    x, y = a.submission, b.submission
    if x is None or y is None:
        state: State = "unknown" if noise == "near" else "differs"
        return LayerDiff(state, ("the files differ, and not both are here",))
    if x.query_ids != y.query_ids:
        return LayerDiff("differs", (_row_line(x, y),))
    if x.positions.shape != y.positions.shape:
        widths = x.positions.shape[1], y.positions.shape[1]
        return LayerDiff("differs", (f"ids a row: A {widths[0]}, B {widths[1]}",))
    overlap = float(np.mean(overlaps(x.positions, y.positions)))
    rows = np.flatnonzero((x.positions != y.positions).any(axis=1)).tolist()
    lines = [
        f"{len(rows)} of {len(x.query_ids)} rows differ, first {x.query_ids[rows[0]]}; "
        f"overlap@{x.positions.shape[1]} {overlap:.4f}",
        *reordered(x, y),
    ]
    is_noise = noise == "near" and overlap >= _MIN_OVERLAP
    return LayerDiff("near" if is_noise else "differs", tuple(lines))


def reordered(a: Ranking, b: Ranking) -> list[str]:
    """Return a line if both have the same answers under different query ids."""
    answers_a, answers_b = (sorted(map(tuple, ranking_.positions.tolist())) for ranking_ in (a, b))
    if answers_a != answers_b:
        return []
    return ["the same answers under other query ids: rows were reordered after the ranking"]


def paired(a: Ranking, b: Ranking, artifacts: Artifacts, *, rows: str) -> list[str]:
    """Return a line on the difference in score with its paired interval, if labels are known."""
    if not any(query_id in artifacts.qrels for query_id in a.query_ids):
        return []
    difference = _difference(a, b, artifacts)
    gap = difference.projection or difference.all
    name = f"projection@{difference.k}" if difference.projection else difference.metric.title
    result = _BETTER.get(difference.result, difference.result)
    return [
        f"{name} of {rows}: B minus A {-gap.value:+.4f}, 95 % "
        f"{-gap.high:+.4f} to {-gap.low:+.4f}: {result}"
    ]


def metric(a: EvidenceRecord, b: EvidenceRecord) -> LayerDiff:
    """Compare metrics: k and number of rows; one ranking with two scores has two metrics."""
    metrics = [layer_values.metric(record.evidence.score) for record in (a, b)]
    if not all(metrics):
        return LayerDiff("unknown")
    titles = [metric_of(record.evidence.score).title for record in (a, b)]
    has_board = bool({a.evidence.kind, b.evidence.kind} & {*ledger.BOARDS})
    if titles[0] != titles[1] or (metrics[0] != metrics[1] and not has_board):
        return LayerDiff("differs", (f"A {metrics[0]}, B {metrics[1]}",))
    rankings = [record.evidence.facts.get("valid") for record in (a, b)]
    scores = [layer_values.value(record.evidence.score) for record in (a, b)]
    if rankings[0] and rankings[0] == rankings[1] and scores[0] != scores[1]:
        line = f"one ranking, two scores: A {scores[0]:.4f}, B {scores[1]:.4f}"
        return LayerDiff("differs", (f"{line}; another k or other labels under the same name",))
    return LayerDiff("equal")


def score(a: EvidenceRecord, b: EvidenceRecord, artifacts: Artifacts, noise: State) -> LayerDiff:
    """Compare two scores, with a paired bootstrap if both rankings of the same rows are here."""
    x, y = (layer_values.value(record.evidence.score) for record in (a, b))
    if x is None or y is None:
        return LayerDiff("unknown")
    if abs(x - y) <= _SCORE_TOLERANCE:
        adapters = [layer_values.values(record).get("adapter", "") for record in (a, b)]
        if all(adapters) and adapters[0] != adapters[1]:
            return LayerDiff("equal", ("two adapters, one score: was one adapter scored twice?",))
        return LayerDiff("equal")
    line = f"A {x:.4f}, B {y:.4f}, B minus A {y - x:+.4f}"
    if a.valid is None or b.valid is None or set(a.valid.query_ids) != set(b.valid.query_ids):
        return LayerDiff("near" if noise == "near" else "differs", (line,))
    aligned = b.valid.of(a.valid.query_ids)
    lines = paired(a.valid, aligned, artifacts, rows="the validation rows")
    is_significant = bool(lines) and not lines[0].endswith("no difference shown")
    is_noise = noise == "near" and not is_significant
    return LayerDiff("near" if is_noise else "differs", (line, *lines))


def _by_digest(a: EvidenceRecord, b: EvidenceRecord, layer: str) -> LayerDiff | None:
    """Return the comparison if the digests settle it; None if they differ."""
    x, y = (record.evidence.layers.get(layer, "") for record in (a, b))
    if not (x and y):
        return LayerDiff("unknown")
    return LayerDiff("equal") if x == y else None


def _without_vectors(a: EvidenceRecord, b: EvidenceRecord) -> LayerDiff:
    rankings = [record.evidence.layers.get("ranking", "") for record in (a, b)]
    if all(rankings) and rankings[0] == rankings[1]:
        line = "the embeddings are not here; every ranked id of the probe is the same"
        return LayerDiff("near", (line,))
    return LayerDiff("differs", ("embeddings are missing here: the drift cannot be measured",))


def _cosine_line(a: EvidenceRecord, similarities: NDArray[np.float64], limit: float) -> str:
    row = int(similarities.argmin())
    name = a.rows[row]["query_id"] if a.rows else f"row {row}"
    return (
        f"cosine of {len(similarities)} probe prompts: minimum {similarities[row]:.7f} ({name}), "
        f"mean {similarities.mean():.7f}; bound {1 - limit:g}"
    )


def _margin(a: EvidenceRecord, b: EvidenceRecord) -> float:
    """Return how close two scores must be for the drift to swap them.

    A score q·p moves by at most |dq| + |dp|, and a swap needs twice that. Passage embeddings are
    not stored; their drift is taken as twice the largest drift of a prompt.
    """
    limit = float(np.sqrt(2 * bound(a, b)))  # a drift beyond the bound explains no swap
    if a.vectors is None or b.vectors is None or a.vectors.shape != b.vectors.shape:
        return max(_TIES, 2 * limit * (bound(a, b) > NEAR))
    drift = np.linalg.norm((a.vectors - b.vectors).astype(np.float64), axis=1).max(initial=0.0)
    return max(_TIES, 6 * min(float(drift), limit))


def _count_swaps(a: Ranking, b: Ranking, margin: float) -> _Swaps:
    ranks = rows = beyond = 0
    first: QueryId | None = None
    width = min(a.positions.shape[1], b.positions.shape[1])
    for row, query_id in enumerate(a.query_ids):
        passages_a = a.positions[row, :width].tolist()
        passages_b = b.positions[row, :width].tolist()
        scores = dict(zip(passages_a, a.scores[row, :width].tolist(), strict=True))
        lowest = min(scores.values(), default=0.0)
        pairs = [(x, y) for x, y in zip(passages_a, passages_b, strict=True) if x != y]
        large = sum(abs(scores[x] - scores.get(y, lowest)) > margin for x, y in pairs)
        ranks, rows, beyond = ranks + len(pairs), rows + bool(pairs), beyond + large
        if large and first is None:
            first = query_id
    return _Swaps(ranks, rows, beyond, first)


def _difference(a: Ranking, b: Ranking, artifacts: Artifacts) -> significance.Difference:
    query_ids = tuple(query_id for query_id in a.query_ids if query_id in artifacts.qrels)
    labels: Qrels = {query_id: artifacts.qrels[query_id] for query_id in query_ids}
    unseen = artifacts.unseen & labels.keys()
    metric_ = artifacts.metric.within(min(a.positions.shape[1], b.positions.shape[1]))
    return significance.compare(
        a.of(query_ids), b.of(query_ids), labels, unseen, artifacts.scoring, metric_
    )


def _row_line(a: Ranking, b: Ranking) -> str:
    rows_a, rows_b = set(a.query_ids), set(b.query_ids)
    if rows_a == rows_b:
        return "the same rows in another order"
    line = f"A has {len(a.query_ids)} rows, B {len(b.query_ids)}"
    if rows_b < rows_a or rows_a < rows_b:
        missing = min(rows_a ^ rows_b)
        return f"{line}: one is truncated, or of another test; first missing {missing}"
    return f"{line}, of another test"
