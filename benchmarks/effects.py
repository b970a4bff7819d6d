"""What a change of sampling or of dropout does to MAP: paired, by question, with its interval.

Each valid row's average precision is averaged over seeds, and the difference of two arms is
resampled by whole questions. The interval so holds the chance in which questions were asked, not
that of the seeds: the differences seed by seed stand beside it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from benchmarks.arms import ARMS, Arm
from parity.competition.query import QueryId
from parity.competition.scoring.bootstrap import Estimate, Interval, estimate
from parity.run.config.run_file import ScoringConfig
from parity.run.errors import Mismatch

Outcome = Mapping[str, Any]
"""What `trial` wrote of one arm and seed."""

_POLICIES = ("own", "fixed")
_FEWEST = 3  # seeds: one training against one other differs by more than the rows can tell


@dataclass(frozen=True, slots=True)
class Effect:
    """MAP of an arm minus that of its reference, over the seeds that both have.

    Attributes:
        arm: its name.
        reference: the other's.
        policy: how valid rows were asked, `own` or `fixed`.
        gain: over all rows, over seen and unseen ones, and their projection.
        by_seed: seed → difference over all rows.
    """

    arm: str
    reference: str
    policy: str
    gain: Estimate
    by_seed: dict[int, float]

    @property
    def shown(self) -> str:
        """Say which is better, where the interval leaves zero out and every seed agrees."""
        if len(self.by_seed) < _FEWEST:
            return f"fewer than {_FEWEST} seeds: shows nothing"
        if self.gain.all.low > 0 and min(self.by_seed.values()) > 0:
            return "better"
        if self.gain.all.high < 0 and max(self.by_seed.values()) < 0:
            return "worse"
        return "no difference shown"


def precisions(outcomes: Sequence[Outcome], policy: str) -> dict[QueryId, float]:
    """Return each valid row's average precision, averaged over `outcomes`, one for each seed.

    Raises:
        Mismatch: two of them scored different rows.
    """
    rows = outcomes[0]["precisions"][policy].keys()
    for outcome in outcomes:
        if outcome["precisions"][policy].keys() != rows:
            raise Mismatch(
                f"arm {outcome['arm']}, seed {outcome['seed']}: scored on other rows than the other arms; "
                "give all one split"
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
        arm: its outcomes.
        reference: outcomes of the same seeds, in any order.
        policy: how valid rows were asked.
        scoring: bootstrap draws and seed.

    Raises:
        Mismatch: other rows, or other seeds.
    """
    ours, theirs = ({one["seed"]: one for one in side} for side in (arm, reference))
    if ours.keys() != theirs.keys():
        raise Mismatch(f"seeds {sorted(ours)} are compared with seeds {sorted(theirs)}")
    unseen = _unseen([*arm, *reference])
    here, there = precisions(arm, policy), precisions(reference, policy)
    if here.keys() != there.keys():
        raise Mismatch(f"{len(here)} and {len(there)} valid rows are compared; give both one split")
    return Effect(
        arm[0]["arm"],
        reference[0]["arm"],
        policy,
        estimate({row: here[row] - there[row] for row in here}, unseen, scoring),
        {seed: _map(ours[seed], policy) - _map(theirs[seed], policy) for seed in sorted(ours)},
    )


def effects(outcomes: Iterable[Outcome], scoring: ScoringConfig) -> list[Effect]:
    """Return every comparison that the finished outcomes allow, in the order of the arms."""
    there = _by_arm(outcomes)
    found = []
    for arm in (ARMS[name] for name in there):
        for other in (name for name in arm.against if name in there):
            found += _compared(there[arm.name], there[other], scoring)
    return found


def record(outcomes: Sequence[Outcome], scoring: ScoringConfig) -> dict[str, Any]:
    """Return all of it as plain values, the outcomes too: a later run goes on from them."""
    ordered = sorted(outcomes, key=lambda item: (item["arm"], item["seed"]))
    return {
        "outcomes": ordered,
        "effects": [{**asdict(one), "shown": one.shown} for one in effects(ordered, scoring)],
        "maps": {
            name: {policy: asdict(score(seeds, policy, scoring)) for policy in _policies(seeds)}
            for name, seeds in _by_arm(ordered).items()
        },
    }


def markdown(outcomes: Sequence[Outcome], scoring: ScoringConfig) -> str:
    """Return the two tables: what each arm costs and scores, and the differences."""
    lines = [
        "| arm | MAP@25 by seed | mean (95 %) | asked behind fixed few-shot examples | rows a step "
        "| packed tokens an epoch | of unpacked | s a step | GiB used (held) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, seeds in _by_arm(outcomes).items():
        lines.append(_arm_row(ARMS[name], seeds, scoring))
    lines += [
        "",
        "| difference | valid rows asked | all rows (95 %) | by seed | seen | unseen | |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in effects(outcomes, scoring):
        by_seed = ", ".join(f"{value:+.4f}" for value in one.by_seed.values())
        gain = one.gain
        lines.append(
            f"| {one.arm} − {one.reference} | {one.policy} | {_signed(gain.all)} | {by_seed} "
            f"| {_signed(gain.seen)} | {_signed(gain.unseen)} | {one.shown} |"
        )
    return "\n".join(lines) + "\n"


def _arm_row(arm: Arm, seeds: Sequence[Outcome], scoring: ScoringConfig) -> str:
    own = score(seeds, "own", scoring)
    fixed = score(seeds, "fixed", scoring) if "fixed" in _policies(seeds) else None
    packed = fmean(seed["packed_tokens"] for seed in seeds)
    plain = fmean(seed["plain_tokens"] for seed in seeds)
    rows = fmean(seed["rows"] / seed["steps"] for seed in seeds)
    times = [seed["seconds_per_step"] for seed in seeds if seed["seconds_per_step"]]
    slower = " (checkpointed)" if arm.checkpointing else ""
    cells = (
        f"{arm.name} {arm.about}",
        ", ".join(f"{_map(seed, 'own'):.4f}" for seed in seeds),
        f"{own.value:.4f} ({own.low:.4f} to {own.high:.4f})",
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
    """Compare over the seeds that both have finished, by each way of asking that both know."""
    common = {one["seed"] for one in arm} & {one["seed"] for one in reference}
    ours, theirs = ([one for one in side if one["seed"] in common] for side in (arm, reference))
    if not common:
        return []
    both = [policy for policy in _policies(ours) if policy in _policies(theirs)]
    if all(ARMS[side[0]["arm"]].examples == "batch" for side in (ours, theirs)):
        both = ["own"]  # which asks behind fixed few-shot examples
    return [effect(ours, theirs, policy, scoring) for policy in both]


def _by_arm(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda item: (item["arm"], item["seed"])):
        found.setdefault(outcome["arm"], []).append(outcome)
    return found


def _policies(seeds: Sequence[Outcome]) -> list[str]:
    return [policy for policy in _POLICIES if all(policy in seed["precisions"] for seed in seeds)]


def _unseen(outcomes: Sequence[Outcome]) -> frozenset[QueryId]:
    """Return the rows marked unseen.

    Raises:
        Mismatch: not all outcomes mark the same.
    """
    found = {frozenset(outcome["unseen"]) for outcome in outcomes}
    if len(found) > 1:
        raise Mismatch("outcomes of different splits are compared; give all one split")
    return found.pop()


def _map(outcome: Outcome, policy: str) -> float:
    return fmean(outcome["precisions"][policy].values())


def _signed(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{interval.value:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"
