"""How far two sides part in what was computed: embeddings, rankings, submissions, scores.

A difference is noise where rounding explains it: embeddings within a bound that the precision
sets, and ranked ids that changed places only where their scores lie closer than the drift moves.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from parity.analysis.compare import layer_values
from parity.analysis.compare.evidence_record import Artifacts, EvidenceRecord
from parity.competition.query import Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring import significance
from parity.deploy.kernel.image_comparison import NEAR, cosines, overlaps
from parity.run import ledger

State = Literal["equal", "unknown", "near", "differs"]
BOUNDS = {"float32": NEAR, "float16": 5e-4, "bfloat16": 5e-3}
"""How far below 1 the cosine of two embeddings of one text may lie, by the coarser dtype.

Measured against fp32 on the demo's adapter (12 layers, 64 prompts): 1.6e-5 in fp16, 6.4e-4 in bf16;
the bare base lies at 0.97. Deeper models round more often, hence the room.
"""
_TIES = 2e-5  # scores of fp32 this close may change places: each moves by 1e-5 at most
_ALIKE = 0.9  # share of a row's ids that noise leaves it, on average over rows
_SAME_SCORE = 1e-9
_FURTHER = 1.5  # times as far from the bare base as the other side: no rounding
Vectors = NDArray[np.float32]
"""(n, d) float32, one row a prompt of the probe."""


@dataclass(frozen=True, slots=True)
class LayerDiff:
    """What a measured layer showed; `sure` where it shows by itself what went wrong."""

    state: State
    told: tuple[str, ...] = ()
    sure: bool = False


@dataclass(frozen=True, slots=True)
class _Swaps:
    places: int
    rows: int
    real: int
    first: QueryId | None


def bound(a: EvidenceRecord, b: EvidenceRecord) -> float:
    """Return how far below 1 cosines may lie for the difference to be rounding.

    Weights rounded to few bits are another model: against whole ones they have fp32's bound.
    """
    told = [one.evidence.layers.get("precision") or "float32/none" for one in (a, b)]
    dtypes, quantized = zip(*(one.partition("/")[::2] for one in told), strict=True)
    if quantized[0] != quantized[1]:
        return NEAR
    return max(BOUNDS.get(dtype, NEAR) for dtype in dtypes)


def embeddings(a: EvidenceRecord, b: EvidenceRecord) -> LayerDiff:
    """Compare the probe's embeddings: digests, then cosines against the bound."""
    if settled := _settled(a, b, "embeddings"):
        return settled
    if a.vectors is None or b.vectors is None:
        return _unmeasured(a, b)
    if a.vectors.shape != b.vectors.shape:
        return LayerDiff("differs", (f"sizes {a.vectors.shape} and {b.vectors.shape}",))
    found = cosines(a.vectors, b.vectors)
    drift, most = 1 - found.min(initial=1.0), bound(a, b)
    worst = a.rows[int(found.argmin())]["query_id"] if a.rows else f"row {int(found.argmin())}"
    odd = int(np.count_nonzero(a.vectors != b.vectors))
    lines = [
        f"cosine of {len(found)} probe prompts: least {found.min(initial=1.0):.7f} ({worst}), "
        f"mean {found.mean():.7f}; bound {1 - most:g}"
    ]
    if not odd:
        lines = ["the prompts' are equal to the bit; the corpus' differ"]
    if drift <= most:
        return LayerDiff("near", tuple(lines))
    proof = _proof(a, b)
    return LayerDiff("differs", (*lines, *proof), sure=bool(proof))


def _settled(a: EvidenceRecord, b: EvidenceRecord, layer: str) -> LayerDiff | None:
    """Return what a layer's digests say by themselves; None where they differ."""
    one, other = (side.evidence.layers.get(layer, "") for side in (a, b))
    if not (one and other):
        return LayerDiff("unknown")
    return LayerDiff("equal") if one == other else None


def ranking(a: EvidenceRecord, b: EvidenceRecord, known: Artifacts) -> LayerDiff:
    """Compare the probe's rankings: swaps that the drift explains against real ones."""
    if settled := _settled(a, b, "ranking"):
        return settled
    if a.probe is None or b.probe is None:
        return LayerDiff("unknown", ("the rankings are not at hand: swaps cannot be counted",))
    if set(a.probe.query_ids) != set(b.probe.query_ids):
        return LayerDiff("differs", ("the probes hold other rows",))
    there = b.probe.of(a.probe.query_ids)
    margin = _margin(a, b)
    swaps = _swaps(a.probe, there, margin)
    shared = float(np.mean(overlaps(a.probe.ids, there.ids)))
    lines = [
        f"{swaps.places} places in {swaps.rows} of {len(there.ids)} rows differ, {swaps.real} of "
        f"them by more than the margin {margin:.2g}; overlap@{a.probe.ids.shape[1]} {shared:.4f}"
    ]
    if swaps.real:
        lines.append(f"first beyond it: {swaps.first}")
        lines += reordered(a.probe, there)
    lines += paired(a.probe, there, known, what="the probe, which is no CV")
    noise = not swaps.real and shared >= _ALIKE
    return LayerDiff("near" if noise else "differs", tuple(lines))


def submission(a: EvidenceRecord, b: EvidenceRecord, noise: State) -> LayerDiff:
    """Compare submissions; some ids may change where embeddings (`noise`) did so within bounds."""
    if settled := _settled(a, b, "submission"):
        return settled
    one, other = a.submission, b.submission
    if one is None or other is None:
        state: State = "unknown" if noise == "near" else "differs"
        return LayerDiff(state, ("the files differ and are not both at hand",))
    if one.query_ids != other.query_ids:
        return LayerDiff("differs", (_rows_told(one, other),))
    if one.ids.shape != other.ids.shape:
        widths = one.ids.shape[1], other.ids.shape[1]
        return LayerDiff("differs", (f"ids a row: A {widths[0]}, B {widths[1]}",))
    shared = overlaps(one.ids, other.ids)
    odd = [n for n in range(len(one.ids)) if one.ids[n].tolist() != other.ids[n].tolist()]
    mean = float(np.mean(shared))
    lines = [
        f"{len(odd)} of {len(one.ids)} rows differ, first {one.query_ids[odd[0]]}; "
        f"overlap@{one.ids.shape[1]} {mean:.4f}",
        *reordered(one, other),
    ]
    return LayerDiff("near" if noise == "near" and mean >= _ALIKE else "differs", tuple(lines))


def reordered(one: Ranking, other: Ranking) -> list[str]:
    """Say so where the same answers lie under other query ids."""
    mine, theirs = (sorted(map(tuple, side.ids.tolist())) for side in (one, other))
    if mine != theirs:
        return []
    return ["the same answers under other query ids: rows were reordered after they were ranked"]


def paired(one: Ranking, other: Ranking, known: Artifacts, *, what: str) -> list[str]:
    """Return a line on the difference of MAP with its paired interval, where labels are at hand."""
    ids = tuple(row for row in one.query_ids if row in known.qrels)
    if not ids:
        return []
    found = _difference(one, other, known)
    judged = found.projection or found.all
    better = {"a is better": "A is better", "b is better": "B is better"}
    over = "projection" if found.projection else "MAP"
    return [
        f"{over}@{found.k} of {what}: B less A {-judged.value:+.4f}, 95 % "
        f"{-judged.high:+.4f} to {-judged.low:+.4f}: {better.get(found.verdict, found.verdict)}"
    ]


def metric(a: EvidenceRecord, b: EvidenceRecord) -> LayerDiff:
    """Compare what the scores are scores of; one ranking with two scores has two metrics."""
    mine, theirs = (layer_values.metric(one.evidence.score) for one in (a, b))
    if not mine or not theirs:
        return LayerDiff("unknown")
    one, other = (layer_values.depth(side.evidence.score) for side in (a, b))
    apart = {a.evidence.kind, b.evidence.kind} & {*ledger.BOARDS}
    if one != other or (mine != theirs and not apart):
        return LayerDiff("differs", (f"A {mine}, B {theirs}",))
    same = [side.evidence.facts.get("valid") for side in (a, b)]
    scores = [layer_values.value(side.evidence.score) for side in (a, b)]
    if same[0] and same[0] == same[1] and scores[0] != scores[1]:
        line = f"one ranking, two scores: A {scores[0]:.4f}, B {scores[1]:.4f}"
        return LayerDiff("differs", (f"{line}; another k or other labels under the same name",))
    return LayerDiff("equal")


def score(a: EvidenceRecord, b: EvidenceRecord, known: Artifacts, noise: State) -> LayerDiff:
    """Compare two scores of the same rows, by a paired bootstrap where the rankings are there."""
    mine, theirs = (layer_values.value(one.evidence.score) for one in (a, b))
    if mine is None or theirs is None:
        return LayerDiff("unknown")
    adapters = [layer_values.values(one).get("adapter", "") for one in (a, b)]
    if abs(mine - theirs) <= _SAME_SCORE:
        if all(adapters) and adapters[0] != adapters[1]:
            return LayerDiff("equal", ("equal to the last digit, of two adapters: scored twice?",))
        return LayerDiff("equal")
    line = f"A {mine:.4f}, B {theirs:.4f}, B less A {theirs - mine:+.4f}"
    if a.valid is None or b.valid is None or set(a.valid.query_ids) != set(b.valid.query_ids):
        return LayerDiff("near" if noise == "near" else "differs", (line,))
    there = b.valid.of(a.valid.query_ids)
    told = paired(a.valid, there, known, what="the valid rows")
    shown = not told or not told[0].endswith("no difference shown")
    within = noise == "near" and not shown
    return LayerDiff("near" if within else "differs", (line, *told))


def _difference(one: Ranking, other: Ranking, known: Artifacts) -> significance.Difference:
    ids = tuple(row for row in one.query_ids if row in known.qrels)
    labels: Qrels = {row: known.qrels[row] for row in ids}
    marks = known.unseen & labels.keys()
    k = min(25, one.ids.shape[1], other.ids.shape[1])
    return significance.compare(one.of(ids), other.of(ids), labels, marks, known.scoring, k=k)


def _unmeasured(a: EvidenceRecord, b: EvidenceRecord) -> LayerDiff:
    ranked = [one.evidence.layers.get("ranking", "") for one in (a, b)]
    if all(ranked) and ranked[0] == ranked[1]:
        return LayerDiff(
            "near", ("not at hand to measure; every ranked id of the probe is the same",)
        )
    return LayerDiff("differs", ("not at hand on both sides: the drift cannot be measured",))


def _proof(a: EvidenceRecord, b: EvidenceRecord) -> list[str]:
    """Say what a drift beyond rounding is, where rows moved or the bare base shows it."""
    mine, theirs, bare = a.vectors, b.vectors, a.bare if a.bare is not None else b.bare
    assert mine is not None  # for `embeddings` has looked
    assert theirs is not None
    if sorted(map(tuple, mine.tolist())) == sorted(map(tuple, theirs.tolist())):
        return ["the same embeddings in another order of rows: reordered by parallel work?"]
    adapted = all(layer_values.values(one).get("adapter") for one in (a, b))
    asked = [one.evidence.layers.get("tokens", "") for one in (a, b)]
    # The bare base tells something of adapters alone, and of the very prompts it embedded.
    if bare is None or bare.shape != mine.shape or not adapted or asked[0] != asked[1]:
        return []
    moved = {name: 1 - cosines(one, bare) for name, one in (("A", mine), ("B", theirs))}
    for name, away in moved.items():
        if away.max() <= NEAR:
            return [f"{name}'s are those of the bare base: its adapter was not applied"]
    near, far = sorted(moved, key=lambda name: float(moved[name].mean()))
    ratio = moved[far].mean() / moved[near].mean()
    if ratio < _FURTHER:
        return []
    return [
        f"{far} lies {ratio:.1f} times as far from the bare base as {near}: {far}'s adapter was "
        f"applied twice, or {near}'s in part (merged into few bits?)"
    ]


def _margin(a: EvidenceRecord, b: EvidenceRecord) -> float:
    """Return how close two scores must lie for the drift to swap them.

    A score q·p moves by |dq| + |dp| at most, and a swap needs twice that. Passages are not kept,
    so that theirs is taken as twice the largest of the prompts'.
    """
    if a.vectors is None or b.vectors is None or a.vectors.shape != b.vectors.shape:
        return max(_TIES, 2 * float(np.sqrt(2 * bound(a, b))) * (bound(a, b) > NEAR))
    moved = np.linalg.norm((a.vectors - b.vectors).astype(np.float64), axis=1).max(initial=0.0)
    limit = float(np.sqrt(2 * bound(a, b)))  # a drift beyond the bound explains no swap
    return max(_TIES, 6 * min(float(moved), limit))


def _swaps(one: Ranking, other: Ranking, margin: float) -> _Swaps:
    places = rows = real = 0
    first: QueryId | None = None
    width = min(one.ids.shape[1], other.ids.shape[1])
    for row, query_id in enumerate(one.query_ids):
        mine, theirs = one.ids[row, :width].tolist(), other.ids[row, :width].tolist()
        scores = dict(zip(mine, one.scores[row, :width].tolist(), strict=True))
        last = min(scores.values(), default=0.0)
        pairs = [(x, y) for x, y in zip(mine, theirs, strict=True) if x != y]
        beyond = sum(abs(scores[x] - scores.get(y, last)) > margin for x, y in pairs)
        places, rows, real = places + len(pairs), rows + bool(pairs), real + beyond
        if beyond and first is None:
            first = query_id
    return _Swaps(places, rows, real, first)


def _rows_told(one: Ranking, other: Ranking) -> str:
    mine, theirs = set(one.query_ids), set(other.query_ids)
    if mine == theirs:
        return "the same rows in another order"
    rows = f"A has {len(one.query_ids)} rows, B {len(other.query_ids)}"
    if theirs < mine or mine < theirs:
        lost = sorted(mine ^ theirs)
        return f"{rows}: one is cut short, or another test; first missing {lost[0]}"
    return f"{rows}, of another test"
