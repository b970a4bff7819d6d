"""`python -m benchmarks.hidden_share`: how many hidden rows are unseen, from counts alone.

Where somebody counted all labels, those of the hidden test too, the difference to train's says how
many misconceptions only the hidden test has, and how many that train shows once it shows again.
Hidden tests are cut from train in many ways; those with the same differences tell the unseen share.
No label of the hidden test is looked at: `ALL` is what others counted.
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
from parity.competition.query import Qrels
from parity.competition.scoring.bootstrap import question_of
from parity.run.errors import ParityError

_DATA = Path("../shared/eedi")
_KEPT = 0.03  # of all draws: those nearest to what was counted
_SCALE = np.array([0.02, 0.02, 0.06])  # how far each count strays between cuts of one kind
_NEAR = 10  # rare companions that are held next, at most
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class Count:
    """What a set of labels holds.

    Attributes:
        questions: with a label.
        rows: labeled.
        kinds: misconceptions that are right in a row.
        once: those that are right in one row.
    """

    questions: int
    rows: int
    kinds: int
    once: int


ALL = Count(questions=1869, rows=4370, kinds=1604, once=747)
"""Train and hidden test of Eedi together, as the reference on pitfalls counts them."""

Labels = dict[int, list[int]]
"""Question → the misconception of each of its labeled rows."""


def labels(qrels: Qrels) -> Labels:
    """Return the labels by question; a row with several counts with the smallest id."""
    found: Labels = defaultdict(list)
    for row in sorted(qrels):
        found[int(question_of(row))].append(min(qrels[row]))
    return dict(sorted(found.items()))


def count(known: Labels) -> Count:
    """Count labels."""
    drawn = Counter(kind for kinds in known.values() for kind in kinds)
    once = sum(times == 1 for times in drawn.values())
    return Count(len(known), sum(drawn.values()), len(drawn), once)


def signs(whole: Count, train: Count) -> NDArray[np.float64]:
    """Return what two counts say of the difference, (3,): each a number a hidden row or question.

    Kinds that train never shows, and kinds shown once that train alone shows no more (or less), a
    hidden row; rows a hidden question.
    """
    rows = whole.rows - train.rows
    questions = whole.questions - train.questions
    return np.array(
        [(whole.kinds - train.kinds) / rows, (whole.once - train.once) / rows, rows / questions]
    )


def bounds(whole: Count, train: Count) -> tuple[float, float]:
    """Return between what the unseen share must lie: each new kind has a row, and singles one.

    Of the new kinds, A occur once; B of train's singles occur again: whole.once = A + train.once
    - B. Unseen rows are at least A + 2·(new - A), and B rows at least are seen.
    """
    rows, new = whole.rows - train.rows, whole.kinds - train.kinds
    most = new - (whole.once - train.once)  # B where all new kinds are singles
    again = range(max(train.once - whole.once, 0), most + 1)
    single = [whole.once - train.once + b for b in again]
    least = min(a + 2 * (new - a) for a in single)
    return least / rows, 1 - min(again) / rows


def cut(known: Labels, share: float, generator: np.random.Generator) -> tuple[Labels, Labels]:
    """Return train and a hidden test of so many of the questions, cut in a way that is drawn.

    Misconceptions are held out whole, rare or frequent ones first, alone or with those that stand
    beside them, until they fill a part of the hidden questions; the rest are any.
    """
    rarity, filled = generator.uniform(-0.5, 2), min(generator.uniform(0.36, 1.2), 1.0)
    beside = generator.choice([0.0, 0.0, 0.3, 0.6])
    where: dict[int, list[int]] = defaultdict(list)
    for question, kinds in known.items():
        for kind in kinds:
            where[kind].append(question)
    kinds = sorted(where)
    weight = np.array([float(len(where[kind])) ** -rarity for kind in kinds])
    order = iter(np.argsort(generator.exponential(size=len(kinds)) / weight).tolist())
    wanted = round(share * len(known))
    held, hidden = set[int](), dict[int, None]()
    while len(hidden) < filled * wanted:
        near = {kind for question in hidden for kind in known[question]} - held
        if near and generator.random() < beside:
            rare = sorted(near, key=lambda kind: (len(where[kind]), kind))[:_NEAR]
            kind = rare[int(generator.integers(len(rare)))]
        else:
            kind = kinds[next(order)]
        held.add(kind)
        hidden.update(dict.fromkeys(where[kind]))
    left = [question for question in known if question not in hidden]
    more = generator.permutation(left)[: max(wanted - len(hidden), 0)].tolist()
    chosen = {*hidden, *more}
    train = {question: known[question] for question in known if question not in chosen}
    return train, {question: known[question] for question in sorted(chosen)}


def unseen(train: Labels, hidden: Labels) -> float:
    """Return the share of hidden rows whose misconception train never shows."""
    shown = {kind for kinds in train.values() for kind in kinds}
    rows = [kind for kinds in hidden.values() for kind in kinds]
    return sum(kind not in shown for kind in rows) / len(rows)


def estimate(known: Labels, whole: Count, *, draws: int, seed: int = 0) -> NDArray[np.float64]:
    """Return the 5, 25, 50, 75 and 95 % points of the hidden test's unseen share.

    Args:
        known: the labels of train.
        whole: what train and hidden test hold together.
        draws: hidden tests that are cut from train, at least one.
        seed: of all draws.

    Source: approximate Bayesian computation by rejection (Pritchard et al. 1999; Beaumont, Zhang
    and Balding 2002).
    """
    generator = np.random.default_rng(seed)
    train = count(known)
    seen = signs(whole, train)
    share = 1 - train.questions / whole.questions
    found = np.empty((draws, 2))
    for draw in range(draws):
        left, hidden = cut(known, share, generator)
        off = np.linalg.norm((signs(train, count(left)) - seen) / _SCALE)
        found[draw] = off, unseen(left, hidden)
    nearest = found[np.argsort(found[:, 0], kind="stable")[: max(round(_KEPT * draws), 1)], 1]
    points: NDArray[np.float64] = np.quantile(nearest, _LEVELS)
    return points


def main(words: Sequence[str]) -> int:
    """Run the command line; return its exit code."""
    made = argparse.ArgumentParser(prog="benchmarks.hidden_share", description=__doc__)
    made.add_argument("--data", type=Path, default=_DATA, help="folder with Kaggle's four files")
    made.add_argument("--draws", type=int, default=10_000)
    asked = made.parse_args(words)
    try:
        known = labels(kaggle_files.read(asked.data).qrels)
    except ParityError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    train = count(known)
    low, high = bounds(ALL, train)
    print(f"train: {train}\nboth:  {ALL}")
    print(f"unseen share of the hidden rows: at least {low:.3f}, at most {high:.3f}")
    at = estimate(known, ALL, draws=asked.draws)
    print(f"likely {at[2]:.3f}; 50 % {at[1]:.3f} to {at[3]:.3f}; 90 % {at[0]:.3f} to {at[4]:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
