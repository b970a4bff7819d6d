"""Measure the effect of sampling and dropout on MAP: paired, by question, with an interval.

The average precision of each validation row is averaged over seeds, and the difference of two arms
is resampled by question. The interval covers the sampling of questions, not of seeds, so the table
also has the difference of each seed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from benchmarks.arms import ARMS, Arm
from parity.competition.query import QueryId
from parity.competition.scoring.bootstrap import Estimate, Interval, estimate
from parity.run.config.scoring import ScoringConfig
from parity.run.errors import Mismatch

Outcome = Mapping[str, Any]
"""Result of `trial` for one arm and seed."""

_POLICIES = ("own", "fixed")
_FEWEST = 3  # seeds: two trainings differ by more than the sampling of rows


@dataclass(frozen=True, slots=True)
class Effect:
    """MAP of an arm minus that of its reference, over the seeds that both have.

    Attributes:
        arm: name of the arm.
        reference: name of the reference.
        policy: few-shot examples of the validation rows, `own` or `fixed`.
        gain: difference over all, seen and unseen rows, and their projection.
        by_seed: seed → difference over all rows.
    """

    arm: str
    reference: str
    policy: str
    gain: Estimate
    by_seed: dict[int, float]

    @property
    def shown(self) -> str:
        """Conclusion: an effect needs an interval without zero and agreement of every seed."""
        if len(self.by_seed) < _FEWEST:
            return f"fewer than {_FEWEST} seeds: shows nothing"
        if self.gain.all.low > 0 and min(self.by_seed.values()) > 0:
            return "better"
        if self.gain.all.high < 0 and max(self.by_seed.values()) < 0:
            return "worse"
        return "no difference shown"


def precisions(outcomes: Sequence[Outcome], policy: str) -> dict[QueryId, float]:
    """Return the average precision of each validation row, averaged over seeds.

    Raises:
        Mismatch: two outcomes have different rows.
    """
    rows = outcomes[0]["precisions"][policy].keys()
    for outcome in outcomes:
        if outcome["precisions"][policy].keys() != rows:
            raise Mismatch(
                f"arm {outcome['arm']}, seed {outcome['seed']} has other rows. Use the same split "
                "for all arms"
            )
    return {row: fmean(outcome["precisions"][policy][row] for outcome in outcomes) for row in rows}


def score(outcomes: Sequence[Outcome], policy: str, scoring: ScoringConfig) -> Interval:
    """Return MAP averaged over seeds, with its interval over questions."""
    return estimate(precisions(outcomes, policy), _unseen(outcomes), scoring).all


def effect(
    arm: Sequence[Outcome], reference: Sequence[Outcome], policy: str, scoring: ScoringConfig
) -> Effect:
    """Compare two arms on the same rows and seeds.

    Args:
        arm: outcomes of the arm.
        reference: outcomes of the same seeds, in any order.
        policy: few-shot examples of the validation rows.
        scoring: bootstrap draws and seed.

    Raises:
        Mismatch: rows or seeds differ.
    """
    arm_by_seed, reference_by_seed = (
        {outcome["seed"]: outcome for outcome in side} for side in (arm, reference)
    )
    if arm_by_seed.keys() != reference_by_seed.keys():
        raise Mismatch(
            f"seeds {sorted(arm_by_seed)} are compared with seeds {sorted(reference_by_seed)}"
        )
    unseen = _unseen([*arm, *reference])
    precision, reference_precision = precisions(arm, policy), precisions(reference, policy)
    if precision.keys() != reference_precision.keys():
        raise Mismatch(
            f"{len(precision)} and {len(reference_precision)} validation rows are compared. Use "
            "one split"
        )
    return Effect(
        arm[0]["arm"],
        reference[0]["arm"],
        policy,
        estimate(
            {row: precision[row] - reference_precision[row] for row in precision}, unseen, scoring
        ),
        {
            seed: _map(arm_by_seed[seed], policy) - _map(reference_by_seed[seed], policy)
            for seed in sorted(arm_by_seed)
        },
    )


def effects(outcomes: Iterable[Outcome], scoring: ScoringConfig) -> list[Effect]:
    """Return every comparison that the finished outcomes allow, in the order of the arms."""
    by_arm = _by_arm(outcomes)
    results = []
    for arm in (ARMS[name] for name in by_arm):
        for other in (name for name in arm.against if name in by_arm):
            results += _compared(by_arm[arm.name], by_arm[other], scoring)
    return results


def record(outcomes: Sequence[Outcome], scoring: ScoringConfig) -> dict[str, Any]:
    """Return everything as plain values, with the outcomes, from which a later run continues."""
    ordered = sorted(outcomes, key=lambda item: (item["arm"], item["seed"]))
    return {
        "outcomes": ordered,
        "effects": [{**asdict(item), "shown": item.shown} for item in effects(ordered, scoring)],
        "maps": {
            name: {policy: asdict(score(seeds, policy, scoring)) for policy in _policies(seeds)}
            for name, seeds in _by_arm(ordered).items()
        },
    }


def markdown(outcomes: Sequence[Outcome], scoring: ScoringConfig) -> str:
    """Return two tables: cost and score of each arm, and the differences."""
    lines = [
        "| arm | MAP@25 by seed | mean (95 %) | with fixed few-shot examples | rows a step "
        "| packed tokens an epoch | of unpacked | s a step | GiB used (held) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, seeds in _by_arm(outcomes).items():
        lines.append(_arm_row(ARMS[name], seeds, scoring))
    lines += [
        "",
        "| difference | examples, validation rows | all rows (95 %) | by seed | seen | unseen | |",
        "|---|---|---|---|---|---|---|",
    ]
    for item in effects(outcomes, scoring):
        by_seed = ", ".join(f"{value:+.4f}" for value in item.by_seed.values())
        gain = item.gain
        lines.append(
            f"| {item.arm} − {item.reference} | {item.policy} | {_signed(gain.all)} | {by_seed} "
            f"| {_signed(gain.seen)} | {_signed(gain.unseen)} | {item.shown} |"
        )
    return "\n".join(lines) + "\n"


def _arm_row(arm: Arm, seeds: Sequence[Outcome], scoring: ScoringConfig) -> str:
    interval = score(seeds, "own", scoring)
    fixed = score(seeds, "fixed", scoring) if "fixed" in _policies(seeds) else None
    packed = fmean(seed["packed_tokens"] for seed in seeds)
    plain = fmean(seed["plain_tokens"] for seed in seeds)
    rows = fmean(seed["rows"] / seed["steps"] for seed in seeds)
    times = [seed["seconds_per_step"] for seed in seeds if seed["seconds_per_step"]]
    slower = " (checkpointed)" if arm.checkpointing else ""
    cells = (
        f"{arm.name} {arm.about}",
        ", ".join(f"{_map(seed, 'own'):.4f}" for seed in seeds),
        f"{interval.value:.4f} ({interval.low:.4f} to {interval.high:.4f})",
        f"{fixed.value:.4f}" if fixed else "–",
        f"{rows:.1f}",
        f"{packed:,.0f}",
        f"{packed / plain:.1%}",
        f"{fmean(times):.3f}{slower}" if times else "–",
        f"{max(seed['peak_gib'] for seed in seeds):.1f} "
        f"({max(seed['held_gib'] for seed in seeds):.1f})",
    )
    return f"| {' | '.join(cells)} |"


def _compared(
    arm: Sequence[Outcome], reference: Sequence[Outcome], scoring: ScoringConfig
) -> list[Effect]:
    """Compare two arms on their common seeds, for each policy that both have."""
    common = {outcome["seed"] for outcome in arm} & {outcome["seed"] for outcome in reference}
    arm_outcomes, reference_outcomes = (
        [outcome for outcome in side if outcome["seed"] in common] for side in (arm, reference)
    )
    if not common:
        return []
    policies = [
        policy for policy in _policies(arm_outcomes) if policy in _policies(reference_outcomes)
    ]
    if all(ARMS[side[0]["arm"]].examples == "batch" for side in (arm_outcomes, reference_outcomes)):
        policies = ["own"]  # which has fixed few-shot examples
    return [effect(arm_outcomes, reference_outcomes, policy, scoring) for policy in policies]


def _by_arm(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda item: (item["arm"], item["seed"])):
        groups.setdefault(outcome["arm"], []).append(outcome)
    return groups


def _policies(seeds: Sequence[Outcome]) -> list[str]:
    return [policy for policy in _POLICIES if all(policy in seed["precisions"] for seed in seeds)]


def _unseen(outcomes: Sequence[Outcome]) -> frozenset[QueryId]:
    """Return the rows marked unseen.

    Raises:
        Mismatch: the outcomes mark different rows.
    """
    splits = {frozenset(outcome["unseen"]) for outcome in outcomes}
    if len(splits) > 1:
        raise Mismatch("outcomes of different splits are compared. Use one split for all")
    return splits.pop()


def _map(outcome: Outcome, policy: str) -> float:
    return fmean(outcome["precisions"][policy].values())


def _signed(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{interval.value:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"
