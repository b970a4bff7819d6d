"""Compare CV with the public score in the diary's run log: seen and unseen scores, and noise.

The log has no seen and unseen scores. At a seen share p of the leaderboard, a pair gives two
equations for them: `CV = s·seen + (1-s)·unseen` and `LB = p·seen + (1-p)·unseen`, where s is the
seen share of the split.
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
_Z95 = 1.96
_UNTUNED = 0.21
_IN_TRAINING = re.compile(r"in-training value (?:was )?(0\.\d+)")

RunPair = tuple[LoggedRun, LoggedRun]


def solve_seen_unseen(cv: float, lb: float, split: str) -> tuple[float, float]:
    """Return the MAP of seen and of unseen rows that give both scores.

    >>> seen, unseen = solve_seen_unseen(0.4714, 0.304, "v2")
    >>> round(seen, 2), round(unseen, 2)
    (0.63, 0.2)
    """
    difference = (cv - lb) / (golden.SEEN[split] - SHARE)
    return lb + (1 - SHARE) * difference, lb - SHARE * difference


def projected(cv: float, split: str, untuned: float) -> float:
    """Return the public score if fine-tuning improved seen rows only.

    >>> round(projected(0.4714, "v2", 0.205), 3)
    0.31
    """
    seen_share = golden.SEEN[split]
    seen = (cv - (1 - seen_share) * untuned) / seen_share
    return SHARE * seen + (1 - SHARE) * untuned


def trainings(rows: Sequence[LoggedRun]) -> dict[str, list[LoggedRun]]:
    """Return the pairs by training: base model, split and round; untuned ones by base and split."""
    groups: dict[str, list[LoggedRun]] = defaultdict(list)
    for pair in pairs(rows):
        training = f"round {pair.round}" if pair.round else "tuned"
        groups[f"{pair.model} {pair.split} {training if pair.tuned else 'untuned'}"].append(pair)
    return dict(groups)


def untuned(rows: Sequence[LoggedRun], model: str) -> float:
    """Return the median public score of a base model; 0.21 where the log has no such score.

    Source of 0.21: base models of all kinds, the list of pitfalls, part H.
    """
    scores = [pair.public for pair in pairs(rows) if not pair.tuned and pair.model == model]
    return median(scores) if scores else _UNTUNED


def expected(rows: Sequence[LoggedRun], pair: LoggedRun) -> float:
    """Return the public score of a pair if fine-tuning improved seen rows only."""
    if not pair.tuned:
        return pair.score
    return projected(pair.score, pair.split, untuned(rows, pair.model))


def agrees(rows: Sequence[LoggedRun], pair: LoggedRun) -> bool:
    """Return whether a pair's public score is the expected one within 95 % of sampling."""
    slope = SHARE / golden.SEEN[pair.split] if pair.tuned else 1.0  # public points per CV point
    sampling = float(((slope * error(ROWS[pair.split])) ** 2 + error(HIDDEN) ** 2) ** 0.5)
    return abs(pair.public - expected(rows, pair)) <= _Z95 * sampling


def plateaus(rows: Sequence[LoggedRun]) -> list[list[LoggedRun]]:
    """Return the groups of tuned pairs whose public scores are one value, the largest first.

    A group starts at its lowest score and takes every score within one standard error of the
    hidden test's rows.
    """
    ordered = sorted((pair for pair in pairs(rows) if pair.tuned), key=lambda item: item.public)
    groups: list[list[LoggedRun]] = []
    for pair in ordered:
        if groups and pair.public - groups[-1][0].public <= error(HIDDEN):
            groups[-1].append(pair)
        else:
            groups.append([pair])
    return sorted(groups, key=len, reverse=True)


def steps(rows: Sequence[LoggedRun]) -> list[RunPair]:
    """Return the pairs of successive epochs of each training."""
    groups: dict[tuple[str, str], list[LoggedRun]] = defaultdict(list)
    for row in usable(rows):
        if row.epoch.isdigit() and row.tuned:
            groups[row.run, row.rows].append(row)
    return [
        (a, b)
        for group in groups.values()
        for a, b in pairwise(group)
        if int(b.epoch) == int(a.epoch) + 1
    ]


def tables(rows: Sequence[LoggedRun], least: int = 5) -> list[list[LoggedRun]]:
    """Return the groups of compared runs: equal in family, split, round and epoch."""
    groups: dict[tuple[str, ...], list[LoggedRun]] = defaultdict(list)
    for row in usable(rows):
        if row.epoch and row.tuned:
            groups[stem(row.run), row.rows, row.round, row.epoch].append(row)
    return [group for group in groups.values() if len({row.run for row in group}) >= least]


def rises(rows: Sequence[LoggedRun]) -> tuple[list[RunPair], list[RunPair]]:
    """Return pairs of tuned runs, of one base model and split, whose CV rose by more than noise.

    Returns:
        Pairs whose public score rose by more than noise too, and pairs whose score did not.
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
    risen = [(a, b) for a, b in ordered if b.score - a.score > noise(ROWS[a.split])]
    risen.sort(key=lambda item: item[0].score - item[1].score)
    confirmed = [item for item in risen if item[1].public - item[0].public > error(HIDDEN)]
    return confirmed, [item for item in risen if item not in confirmed]


def rescored(rows: Sequence[LoggedRun]) -> list[tuple[LoggedRun, float]]:
    """Return the retrievers' rows with a score from training too, and that score."""
    noted = ((row, _IN_TRAINING.search(row.notes)) for row in usable(rows))
    return [(row, float(match[1])) for row, match in noted if match]


def duplicates(rows: Iterable[LoggedRun]) -> list[list[LoggedRun]]:
    """Return groups of rows with equal CV and recall but different runs or epochs."""
    groups: dict[tuple[float, float, str], list[LoggedRun]] = defaultdict(list)
    for row in rows:
        if row.cv is not None and row.recall is not None:
            groups[row.cv, row.recall, row.rows].append(row)
    return [group for group in groups.values() if len({(row.run, row.epoch) for row in group}) > 1]
