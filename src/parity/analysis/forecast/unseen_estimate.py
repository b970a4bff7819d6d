"""How many misconceptions the labels never show, and how often a new row would be of one.

Both come from how often each label occurs, and from nothing else. They answer for rows drawn as
the labeled ones were; a host who builds a harder test shows more that is unseen, seldom less.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

_Z = 1.959963984540054  # of 95 %, both sides


@dataclass(frozen=True, slots=True)
class Bounds:
    """An estimate, its standard error and a 95 % interval.

    Attributes:
        value: the estimate.
        error: its standard error, in the unit of the value.
        low: lower end.
        high: upper end.
    """

    value: float
    error: float
    low: float
    high: float


def chao1(counts: Iterable[int]) -> Bounds:
    """Return how many kinds were never drawn.

    It is a lower bound where kinds are not equally likely.

    Args:
        counts: how often each kind was drawn; zeros say nothing.

    Returns:
        In kinds; all zero where nothing was drawn just once.

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
    """Return the chance that a further draw is of a kind never drawn.

    Args:
        counts: how often each kind was drawn; zeros say nothing.

    Returns:
        A share from 0 to 1; it is 1 where nothing was drawn, or nothing but singles.

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
    """Return the part of labeled rows whose kind a training still shows, from 0 to 1.

    It is c of `forecast`: a model that held kinds out of its training sees fewer of the hidden
    rows than one trained on all labels would; 1 where nothing was labeled.

    Args:
        counts: how often each kind is a label.
        shown: kinds that the model was trained on.
    """
    total = sum(counts.values())
    return sum(counts[kind] for kind in counts if kind in shown) / total if total else 1.0


def _rare(counts: Iterable[int]) -> tuple[int, int, int]:
    """Return how many kinds were drawn once, how many twice, and how many draws there were."""
    drawn = [count for count in counts if count > 0]
    return drawn.count(1), drawn.count(2), sum(drawn)
