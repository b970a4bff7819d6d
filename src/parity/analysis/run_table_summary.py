"""Summarize a table of runs: the gap of each split, contaminated scores and noise."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import median
from typing import Any

from parity.analysis.run_table import ROW_SD, TablePair, TableRun, score_pairs
from parity.run.progress import wrap_lines

_OUTLIER = 3.5  # of the modified z score
_MAD_SD = 1.4826  # standard deviation over median absolute deviation of a normal distribution
_MIN_PAIRS = 4  # fewer give no typical gap
_NAME = 24  # columns of a split's name
_MOST_NAMED = 3  # rises that the text names


@dataclass(frozen=True, slots=True)
class SplitGap:
    """Gap between CV and leaderboard on one split.

    Attributes:
        split: name of the split.
        rows: scored rows of the split.
        pairs: number of runs with both scores.
        mean: mean of CV minus leaderboard score.
        smallest: smallest gap.
        largest: largest gap.
        noise: standard error of one gap, if the leaderboard has as many rows as the split.
    """

    split: str
    rows: int
    pairs: int
    mean: float
    smallest: float
    largest: float
    noise: float


@dataclass(frozen=True, slots=True)
class Suspect:
    """A run whose CV is far above its leaderboard score, compared with the other pairs.

    Attributes:
        pair: the run's pair.
        typical: median gap of the pairs it is compared with.
    """

    pair: TablePair
    typical: float


@dataclass(frozen=True, slots=True)
class SplitNoise:
    """Differences of CV on one split that are within sampling noise.

    Attributes:
        split: name of the split.
        noise: difference of two CVs below which the runs have no order.
        close: pairs of runs with a smaller difference.
        compared: pairs of runs.
    """

    split: str
    noise: float
    close: int
    compared: int


def noise(rows: int) -> float:
    """Return the standard error of the difference of two independent scores on these rows.

    >>> round(noise(864), 3)
    0.019
    """
    return ROW_SD * math.sqrt(2 / rows)


def split_gaps(rows: Sequence[TableRun]) -> list[SplitGap]:
    """Return the gap of each split that has a pair, in the order of the table."""
    groups: dict[str, list[TablePair]] = defaultdict(list)
    for pair in score_pairs(rows):
        groups[pair.row.split].append(pair)
    return [_split_gap(split, group) for split, group in groups.items()]


def suspects(rows: Sequence[TableRun]) -> list[Suspect]:
    """Return the runs that look contaminated, the largest gap first.

    A run counts where its gap exceeds the median gap by 3.5 robust standard deviations, at least
    by 3.5 standard errors. The median is over the pairs of its split, or over all pairs where the
    split has fewer than four.

    Source: the modified z score (Iglewicz and Hoaglin 1993).
    """
    pairs = score_pairs(rows)
    if len(pairs) < _MIN_PAIRS:
        return []
    results = []
    for pair in pairs:
        group = [item.gap for item in pairs if item.row.split == pair.row.split]
        gaps = group if len(group) >= _MIN_PAIRS else [item.gap for item in pairs]
        typical = median(gaps)
        deviation = _MAD_SD * median(abs(gap - typical) for gap in gaps)
        if pair.gap - typical > _OUTLIER * max(deviation, noise(pair.row.rows)):
            results.append(Suspect(pair, typical))
    return sorted(results, key=lambda item: -item.pair.gap)


def split_noise(rows: Sequence[TableRun]) -> list[SplitNoise]:
    """Return how many pairs of runs each split's CVs leave without an order."""
    groups: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for row in rows:
        if row.cv is not None:
            groups[row.split].append((row.cv, row.rows))
    results = []
    for split, group in groups.items():
        limit = noise(group[0][1])
        differences = [abs(a - b) for (a, _), (b, _) in combinations(group, 2)]
        close = sum(difference <= limit for difference in differences)
        results.append(SplitNoise(split, limit, close, len(differences)))
    return results


def rises(rows: Sequence[TableRun]) -> tuple[list[tuple[TablePair, TablePair]], int]:
    """Return pairs of runs on one split whose CV rose by more than noise.

    Returns:
        Those whose leaderboard score did not rise, the largest rise of CV first, and the number
        of all of them.
    """
    pairs = score_pairs(rows)
    risen = [
        (a, b)
        for first, second in combinations(pairs, 2)
        if first.row.split == second.row.split
        for a, b in [sorted((first, second), key=lambda item: item.cv)]
        if b.cv - a.cv > noise(a.row.rows)
    ]
    unconfirmed = [(a, b) for a, b in risen if b.lb <= a.lb]
    return sorted(unconfirmed, key=lambda item: item[0].cv - item[1].cv), len(risen)


def summary(rows: Sequence[TableRun]) -> dict[str, Any]:
    """Return the summary of a table as plain values."""
    unconfirmed, risen = rises(rows)
    return {
        "rows": len(rows),
        "pairs": len(score_pairs(rows)),
        "splits": [asdict(gap) for gap in split_gaps(rows)],
        "contaminated": [
            {
                "run": suspect.pair.row.name,
                "line": suspect.pair.row.line,
                "split": suspect.pair.row.split,
                "gap": suspect.pair.gap,
                "typical_gap": suspect.typical,
            }
            for suspect in suspects(rows)
        ],
        "noise": [asdict(item) for item in split_noise(rows)],
        "rises": {"compared": risen, "without_leaderboard": len(unconfirmed)},
    }


def text(rows: Sequence[TableRun], name: str) -> str:
    """Return the summary of a table for a terminal of 80 columns.

    Args:
        rows: all rows of the table.
        name: name of the table, for the first line.
    """
    with_lb = sum(row.lb is not None for row in rows)
    head = f"{name}: {len(rows)} rows, {with_lb} with LB, {len(score_pairs(rows))} with CV and LB"
    sections = (
        ("1. CV minus LB by split", _gap_lines(rows)),
        ("2. CV too far above LB: trained on the rows it was scored on?", _suspect_lines(rows)),
        ("3. Differences that are noise", _noise_lines(rows)),
    )
    lines = wrap_lines(head)
    for title, body in sections:
        lines += [title, *body]
    return "\n".join(lines)


def _split_gap(split: str, pairs: Sequence[TablePair]) -> SplitGap:
    gaps = [pair.gap for pair in pairs]
    rows = pairs[0].row.rows
    mean = sum(gaps) / len(gaps)
    return SplitGap(split, rows, len(gaps), mean, min(gaps), max(gaps), noise(rows))


def _gap_lines(rows: Sequence[TableRun]) -> Iterator[str]:
    gaps = split_gaps(rows)
    if not gaps:
        yield "  no run has a CV and a leaderboard score"
        return
    yield (
        f"  {'split':{_NAME}} {'rows':>6} {'pairs':>5} {'mean':>7} {'smallest':>8} {'largest':>8}"
        f" {'noise':>6}"
    )
    for gap in gaps:
        yield (
            f"  {gap.split[:_NAME]:{_NAME}} {gap.rows:6d} {gap.pairs:5d} {gap.mean:+7.3f} "
            f"{gap.smallest:+8.3f} {gap.largest:+8.3f} {gap.noise:6.3f}"
        )
    yield from wrap_lines(
        f"noise: standard error of one gap, at {ROW_SD:g} a row and as many rows on the "
        "leaderboard as in the split; beyond twice that, sampling does not explain a gap",
        "  ",
    )


def _suspect_lines(rows: Sequence[TableRun]) -> Iterator[str]:
    results = suspects(rows)
    if not results:
        few = len(score_pairs(rows)) < _MIN_PAIRS
        yield f"  fewer than {_MIN_PAIRS} pairs: no typical gap" if few else "  no such run"
    for suspect in results:
        pair = suspect.pair
        yield from wrap_lines(
            f"{pair.row.name} on {pair.row.split}: CV {pair.cv:.4f}, LB {pair.lb:.4f}, gap "
            f"{pair.gap:+.3f}; typical {suspect.typical:+.3f}",
            "  ",
        )


def _noise_lines(rows: Sequence[TableRun]) -> Iterator[str]:
    results = [item for item in split_noise(rows) if item.compared]
    for item in results:
        yield from wrap_lines(
            f"{item.split}: CVs closer than {item.noise:.3f} have no order, which are "
            f"{item.close} of {item.compared} pairs of runs",
            "  ",
        )
    if not results:
        yield "  no split has two CVs"
    unconfirmed, risen = rises(rows)
    if unconfirmed:
        yield f"  CV up by more than noise, LB not: {len(unconfirmed)} of {risen}, such as"
    for a, b in unconfirmed[:_MOST_NAMED]:
        yield from wrap_lines(
            f"{a.row.name} → {b.row.name}: CV {b.cv - a.cv:+.4f}, LB {b.lb - a.lb:+.4f}", "    "
        )
