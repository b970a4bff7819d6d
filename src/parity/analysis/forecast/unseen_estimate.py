"""Estimate how many labels are missing from the labeled rows, and how often new rows have them.

Both estimates use only the count of each label. They hold for rows sampled as the labeled ones
were; a host who builds a harder test has more unseen rows, seldom fewer.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

_Z = 1.959963984540054  # two-sided 95 %


@dataclass(frozen=True, slots=True)
class Bounds:
    """An estimate, its standard error and a 95 % interval.

    Attributes:
        value: estimate.
        error: standard error, in the unit of the value.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    error: float
    low: float
    high: float


def chao1(counts: Iterable[int]) -> Bounds:
    """Return an estimate of the number of labels that were never drawn.

    It is a lower bound where labels are not equally likely.

    Args:
        counts: number of rows of each label; zeros are ignored.

    Returns:
        Number of labels; all zero where every label was drawn at least twice.

    Source: Chao 1984 in its bias-corrected form; variance and log interval as in Chao 1987.
    """
    once, twice, _ = _rare(counts)
    unseen = once * (once - 1) / (2 * (twice + 1))
    if not unseen:
        return Bounds(0.0, 0.0, 0.0, 0.0)
    pairs = twice + 1
    variance = (
        unseen
        + once * (2 * once - 1) ** 2 / (4 * pairs**2)
        + once**2 * twice * (once - 1) ** 2 / (4 * pairs**4)
    )
    factor = float(np.exp(_Z * np.sqrt(np.log1p(variance / unseen**2))))
    return Bounds(unseen, float(np.sqrt(variance)), unseen / factor, unseen * factor)


def unseen_mass(counts: Iterable[int]) -> Bounds:
    """Return the probability that a new row has a label that was never drawn.

    Args:
        counts: number of rows of each label; zeros are ignored.

    Returns:
        Probability from 0 to 1; 1 where no row was drawn, or every label was drawn once.

    Source: Good 1953 with Turing's estimate f1/n; variance as in Esty 1983 (a normal limit law for
    a nonparametric estimator of the coverage): (f1 + 2·f2 - f1²/n) / n².
    """
    once, twice, total = _rare(counts)
    if not total:
        return Bounds(1.0, 0.0, 1.0, 1.0)
    mass = once / total
    error = float(np.sqrt(max(once + 2 * twice - once**2 / total, 0.0))) / total
    return Bounds(mass, error, max(mass - _Z * error, 0.0), min(mass + _Z * error, 1.0))


def seen_coverage(counts: Mapping[int, int], shown: Collection[int]) -> float:
    """Return the share of labeled rows whose label is in a model's training data, from 0 to 1.

    It is c of `forecast`: a model whose training excludes some labels has seen the labels of fewer
    hidden rows than a model trained on all labels. 1 where there are no labeled rows.

    Args:
        counts: label → number of rows.
        shown: labels that the model was trained on.
    """
    total = sum(counts.values())
    return sum(counts[label] for label in counts if label in shown) / total if total else 1.0


def _rare(counts: Iterable[int]) -> tuple[int, int, int]:
    """Return the number of labels drawn once, of labels drawn twice, and of rows."""
    drawn = [count for count in counts if count > 0]
    return drawn.count(1), drawn.count(2), sum(drawn)
