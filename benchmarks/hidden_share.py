"""`python -m benchmarks.hidden_share`: estimate the unseen share of hidden rows from counts.

If the counts of all labels are known, those of the hidden test included, their difference from
train's counts gives the number of labels that only the hidden test has, and of labels with one row
in train that it repeats. Hidden tests are split from train in many ways; those with the same
differences give the unseen share. No label of the hidden test is read: `ALL` is a published count.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parity.competition.eedi import kaggle_files
from parity.competition.query import Qrels, unit_of
from parity.run.errors import ParityError

_DATA = Path("../shared/eedi")
_KEPT = 0.03  # share of draws with the smallest difference from the counts
_SCALE = np.array([0.02, 0.02, 0.06])  # deviation of each count between splits of one kind
_NEAR = 10  # most rare companions to exclude next
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class Count:
    """Counts of a set of labels.

    Attributes:
        questions: number of questions with a label.
        rows: number of labeled rows.
        kinds: number of different labels.
        once: number of labels with a single row.
    """

    questions: int
    rows: int
    kinds: int
    once: int


ALL = Count(questions=1869, rows=4370, kinds=1604, once=747)
"""Counts of Eedi's train and hidden test together, from the list of pitfalls."""

Labels = dict[int, list[int]]
"""Question → label of each of its labeled rows."""


def labels(qrels: Qrels) -> Labels:
    """Return the labels by question; a row with several labels counts with the smallest one."""
    by_question: Labels = defaultdict(list)
    for row in sorted(qrels):
        by_question[int(unit_of(row))].append(min(qrels[row]))
    return dict(sorted(by_question.items()))


def count(labels_by_question: Labels) -> Count:
    """Return the counts of labels."""
    drawn = Counter(kind for kinds in labels_by_question.values() for kind in kinds)
    once = sum(times == 1 for times in drawn.values())
    return Count(len(labels_by_question), sum(drawn.values()), len(drawn), once)


def signs(total: Count, train: Count) -> NDArray[np.float64]:
    """Return three ratios of two counts, (3,).

    They are new labels per hidden row, the change of labels with a single row per hidden row, and
    rows per hidden question.
    """
    rows = total.rows - train.rows
    questions = total.questions - train.questions
    return np.array(
        [(total.kinds - train.kinds) / rows, (total.once - train.once) / rows, rows / questions]
    )


def bounds(total: Count, train: Count) -> tuple[float, float]:
    """Return the smallest and the largest possible unseen share.

    Of the new labels, A occur once; B of train's single labels occur again: total.once = A +
    train.once - B. At least A + 2·(new - A) rows are unseen, and at least B rows are seen.
    """
    rows, new = total.rows - train.rows, total.kinds - train.kinds
    most_repeated = new - (total.once - train.once)  # B if all new labels are single
    repeated = range(max(train.once - total.once, 0), most_repeated + 1)
    single = [total.once - train.once + b for b in repeated]
    least = min(a + 2 * (new - a) for a in single)
    return least / rows, 1 - min(repeated) / rows


def cut(
    labels_by_question: Labels, share: float, generator: np.random.Generator
) -> tuple[Labels, Labels]:
    """Return train and a hidden test with a share of the questions, split in a random way.

    All rows of some labels are hidden, rare or frequent labels first, alone or with the labels of
    the same questions, until they fill part of the hidden test; the other questions are random.
    """
    rarity, filled = generator.uniform(-0.5, 2), min(generator.uniform(0.36, 1.2), 1.0)
    companion_share = generator.choice([0.0, 0.0, 0.3, 0.6])
    questions_of: dict[int, list[int]] = defaultdict(list)
    for question, kinds in labels_by_question.items():
        for kind in kinds:
            questions_of[kind].append(question)
    kinds = sorted(questions_of)
    weight = np.array([float(len(questions_of[kind])) ** -rarity for kind in kinds])
    order = iter(np.argsort(generator.exponential(size=len(kinds)) / weight).tolist())
    size = round(share * len(labels_by_question))
    excluded, hidden = set[int](), dict[int, None]()
    while len(hidden) < filled * size:
        near = {kind for question in hidden for kind in labels_by_question[question]} - excluded
        if near and generator.random() < companion_share:
            rare = sorted(near, key=lambda kind: (len(questions_of[kind]), kind))[:_NEAR]
            kind = rare[int(generator.integers(len(rare)))]
        else:
            kind = kinds[next(order)]
        excluded.add(kind)
        hidden.update(dict.fromkeys(questions_of[kind]))
    remaining = [question for question in labels_by_question if question not in hidden]
    extra = generator.permutation(remaining)[: max(size - len(hidden), 0)].tolist()
    chosen = {*hidden, *extra}
    train = {
        question: labels_by_question[question]
        for question in labels_by_question
        if question not in chosen
    }
    return train, {question: labels_by_question[question] for question in sorted(chosen)}


def unseen(train: Labels, hidden: Labels) -> float:
    """Return the share of hidden rows whose label is not in train."""
    shown = {kind for kinds in train.values() for kind in kinds}
    rows = [kind for kinds in hidden.values() for kind in kinds]
    return sum(kind not in shown for kind in rows) / len(rows)


def estimate(
    labels_by_question: Labels, total: Count, *, draws: int, seed: int = 0
) -> NDArray[np.float64]:
    """Return the 5, 25, 50, 75 and 95 % quantiles of the hidden test's unseen share.

    Args:
        labels_by_question: labels of train.
        total: counts of train and hidden test together.
        draws: number of hidden tests split from train, at least one.
        seed: seed of all draws.

    Source: approximate Bayesian computation by rejection (Pritchard et al. 1999; Beaumont, Zhang
    and Balding 2002).
    """
    generator = np.random.default_rng(seed)
    train = count(labels_by_question)
    seen = signs(total, train)
    share = 1 - train.questions / total.questions
    draws_table = np.empty((draws, 2))
    for draw in range(draws):
        remaining, hidden = cut(labels_by_question, share, generator)
        off = np.linalg.norm((signs(train, count(remaining)) - seen) / _SCALE)
        draws_table[draw] = off, unseen(remaining, hidden)
    nearest = draws_table[
        np.argsort(draws_table[:, 0], kind="stable")[: max(round(_KEPT * draws), 1)], 1
    ]
    points: NDArray[np.float64] = np.quantile(nearest, _LEVELS)
    return points


def main(words: Sequence[str]) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.hidden_share", description=__doc__)
    parser.add_argument("--data", type=Path, default=_DATA, help="folder with Kaggle's four files")
    parser.add_argument("--draws", type=int, default=10_000)
    arguments = parser.parse_args(words)
    try:
        labels_by_question = labels(kaggle_files.read(arguments.data).qrels)
    except ParityError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    train = count(labels_by_question)
    low, high = bounds(ALL, train)
    print(f"train: {train}\nboth:  {ALL}")
    print(f"unseen share of the hidden rows: at least {low:.3f}, at most {high:.3f}")
    at = estimate(labels_by_question, ALL, draws=arguments.draws)
    print(f"likely {at[2]:.3f}; 50 % {at[1]:.3f} to {at[3]:.3f}; 90 % {at[0]:.3f} to {at[4]:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
