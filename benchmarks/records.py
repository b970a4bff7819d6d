"""Contenders of one training work side by side: losses compared, tokens counted, ratios taken."""

from typing import Any

import torch

from benchmarks import works
from benchmarks.learners import Ours
from benchmarks.measure import spread
from benchmarks.models import Held
from benchmarks.works import Group
from parity.run.errors import Mismatch

LOSS_APART = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest relative difference of the first loss on the run's own model, by precision."""


def record(
    held: Held,
    name: str,
    groups: list[Group],
    lines: list[dict[str, Any]],
    limit: float,
    budget: int,
) -> dict[str, Any]:
    """Put a work's contenders side by side.

    Raises:
        Mismatch: first losses on the run's own model differ.
    """
    reader = held.reader(budget)
    counts = [_counts(reader, group) for group in groups]
    flat, packed = (sum(count[place] for count in counts) for place in (0, 1))
    there = [line for line in lines if "out_of_memory" not in line]
    ours = [line for line in there if line["who"] == Ours.name]
    for line in there:
        _same_loss(line, ours, held.dtype)
    for line in ours:
        seconds = min(one["seconds"] for one in line["runs"])
        line["model_flops"] = packed * _flops(held.parameters(), line) / seconds
        line["of_matmul"] = line["model_flops"] / limit
    return {
        "work": name,
        "queries": len(groups[0].queries),
        "group": groups[0].size,
        "steps": len(groups),
        "tokens": {
            "flat": flat,
            "packed": packed,
            "of_first_batch": {"flat": counts[0][0], "packed": counts[0][1]}
            | {f"padded {one['who']}": one["padded"] for one in there if one not in ours},
        },
        "lines": lines,
        "ratios": _ratios(ours, [line for line in there if line["who"] != Ours.name]),
    }


def _ratios(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """Return how many times faster each of our ways is than each peer's faster way."""
    best: dict[str, dict[str, Any]] = {}
    for line in sorted(theirs, key=lambda line: min(one["each"] for one in line["runs"])):
        best.setdefault(line["who"], line)
    return {
        f"{name}{_how(line)} / ours{_how(mine)}": spread(
            their["each"] / our["each"]
            for their, our in zip(line["runs"], mine["runs"], strict=True)
        )
        for mine in ours
        for name, line in best.items()
    }


def _how(line: dict[str, Any]) -> str:
    return " (checkpointing)" if line["checkpointing"] else ""


def _counts(reader: Any, group: Group) -> tuple[int, int]:
    tokens = [
        *reader.tokenize(group.queries, works.PROMPT.query_max_length),
        *reader.tokenize(group.passages, works.PROMPT.passage_max_length),
    ]
    return sum(map(len, tokens)), sum(map(len, reader.packs(tokens)))


def _same_loss(line: dict[str, Any], ours: list[dict[str, Any]], dtype: torch.dtype) -> None:
    for mine in ours:
        apart = abs(line["first_loss"] - mine["first_loss"]) / abs(mine["first_loss"])
        if not apart <= LOSS_APART[dtype]:
            raise Mismatch(
                f"{line['who']}: first loss {line['first_loss']:.5f}, ours "
                f"{mine['first_loss']:.5f}; the limit is {LOSS_APART[dtype]:.0e} of it"
            )


def _flops(frozen: int, line: dict[str, Any]) -> int:
    """Return a token's operations in a step.

    A frozen weight costs 2 forward and 2 backward (to the activations), a trained one 2 and 4; with
    checkpointing the forward is taken twice. Attention's own products are not counted.
    """
    forward = 4 if line["checkpointing"] else 2
    return int(frozen * (forward + 2) + line["trained"] * (forward + 4))
