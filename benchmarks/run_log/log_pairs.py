"""Pairs of CV and public score of a table of runs: read back into seen and unseen, and noise.

Nobody logged seen and unseen scores. At a seen share p of the leaderboard a pair is two equations
for the two: `CV = s·seen + (1-s)·unseen` and `LB = p·seen + (1-p)·unseen`, s the split's share.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise
from statistics import median

from benchmarks.run_log import golden
from benchmarks.run_log.log import HIDDEN, ROWS, LoggedRun, error, noise, pairs, stem, usable

SHARE = 0.25
"""Seen share of the leaderboard, as in `golden`."""
_SURE = 1.96  # standard errors: 95 %
_UNTUNED = 0.21
_FORMER = re.compile(r"in-training value (?:was )?(0\.\d+)")


def read_back(cv: float, lb: float, split: str) -> tuple[float, float]:
    """Return the MAP of seen and of unseen rows that give both numbers.

    >>> seen, unseen = read_back(0.4714, 0.304, "v2")
    >>> round(seen, 2), round(unseen, 2)
    (0.63, 0.2)
    """
    apart = (cv - lb) / (golden.SEEN[split] - SHARE)
    return lb + (1 - SHARE) * apart, lb - SHARE * apart


def projected(cv: float, split: str, untuned: float) -> float:
    """Return the leaderboard's value where tuning moved seen rows alone.

    >>> round(projected(0.4714, "v2", 0.205), 3)
    0.31
    """
    seen_share = golden.SEEN[split]
    seen = (cv - (1 - seen_share) * untuned) / seen_share
    return SHARE * seen + (1 - SHARE) * untuned


def trainings(rows: Sequence[LoggedRun]) -> dict[str, list[LoggedRun]]:
    """Return the pairs by training: base, split and round; untuned ones by base and split."""
    found: dict[str, list[LoggedRun]] = defaultdict(list)
    for pair in pairs(rows):
        what = f"round {pair.round}" if pair.round else "tuned"
        found[f"{pair.model} {pair.split} {what if pair.tuned else 'untuned'}"].append(pair)
    return dict(found)


def untuned(rows: Sequence[LoggedRun], model: str) -> float:
    """Return the median public score of a base without an adapter; 0.21 where the table has none.

    Source of 0.21: bases of all kinds, the list of pitfalls, part H.
    """
    found = [pair.public for pair in pairs(rows) if not pair.tuned and pair.model == model]
    return median(found) if found else _UNTUNED


def expected(rows: Sequence[LoggedRun], one: LoggedRun) -> float:
    """Return the public score of a pair had tuning moved seen rows alone."""
    return projected(one.score, one.split, untuned(rows, one.model)) if one.tuned else one.score


def agrees(rows: Sequence[LoggedRun], one: LoggedRun) -> bool:
    """Return whether a pair's public score is the expected one within 95 % of sampling."""
    moved = SHARE / golden.SEEN[one.split] if one.tuned else 1.0  # by one point of CV
    sampling = float(((moved * error(ROWS[one.split])) ** 2 + error(HIDDEN) ** 2) ** 0.5)
    return abs(one.public - expected(rows, one)) <= _SURE * sampling


def plateaus(rows: Sequence[LoggedRun]) -> list[list[LoggedRun]]:
    """Return the groups of tuned pairs whose public scores are one value, the largest first.

    From the lowest up, each takes what lies within a standard error of the hidden test's rows.
    """
    left = sorted((pair for pair in pairs(rows) if pair.tuned), key=lambda item: item.public)
    found: list[list[LoggedRun]] = []
    for one in left:
        if found and one.public - found[-1][0].public <= error(HIDDEN):
            found[-1].append(one)
        else:
            found.append([one])
    return sorted(found, key=len, reverse=True)


def steps(rows: Sequence[LoggedRun]) -> list[tuple[LoggedRun, LoggedRun]]:
    """Return each training's epochs in twos, one after the other."""
    found: dict[tuple[str, str], list[LoggedRun]] = defaultdict(list)
    for one in usable(rows):
        if one.epoch.isdigit() and one.tuned:
            found[one.run, one.rows].append(one)
    return [
        (a, b)
        for group in found.values()
        for a, b in pairwise(group)
        if int(b.epoch) == int(a.epoch) + 1
    ]


def tables(rows: Sequence[LoggedRun], least: int = 5) -> list[list[LoggedRun]]:
    """Return the groups of runs that were compared: of one family, split, round and epoch."""
    found: dict[tuple[str, ...], list[LoggedRun]] = defaultdict(list)
    for one in usable(rows):
        if one.epoch and one.tuned:
            found[stem(one.run), one.rows, one.round, one.epoch].append(one)
    return [group for group in found.values() if len({one.run for one in group}) >= least]


def rises(
    rows: Sequence[LoggedRun],
) -> tuple[list[tuple[LoggedRun, LoggedRun]], list[tuple[LoggedRun, LoggedRun]]]:
    """Return twos of tuned pairs, of one base on one split, whose CV rose by more than noise.

    Returns:
        Those whose public score rose by more than noise too, and those whose did not.
    """
    groups: dict[tuple[str, str], list[LoggedRun]] = defaultdict(list)
    for pair in pairs(rows):
        if pair.tuned:
            groups[pair.model, pair.rows].append(pair)
    ordered = [
        (a, b) if a.score < b.score else (b, a)
        for group in groups.values()
        for a, b in combinations(group, 2)
    ]
    found = [(a, b) for a, b in ordered if b.score - a.score > noise(ROWS[a.split])]
    found.sort(key=lambda two: two[0].score - two[1].score)
    with_it = [two for two in found if two[1].public - two[0].public > error(HIDDEN)]
    return with_it, [two for two in found if two not in with_it]


def again(rows: Sequence[LoggedRun]) -> list[tuple[LoggedRun, float]]:
    """Return the retrievers' rows that were scored in training too, with that value."""
    found = ((one, _FORMER.search(one.notes)) for one in usable(rows))
    return [(one, float(told[1])) for one, told in found if told]


def twice(rows: Iterable[LoggedRun]) -> list[list[LoggedRun]]:
    """Return rows of equal CV and recall that should differ: of other runs or other epochs."""
    found: dict[tuple[float, float, str], list[LoggedRun]] = defaultdict(list)
    for row in rows:
        if row.cv is not None and row.recall is not None:
            found[row.cv, row.recall, row.rows].append(row)
    return [group for group in found.values() if len({(one.run, one.epoch) for one in group}) > 1]
