"""Compare the contenders of one training work: losses, tokens, ratios of time."""

from typing import Any

import torch

from benchmarks import works
from benchmarks.learners import Ours
from benchmarks.measure import spread
from benchmarks.models import LoadedModel
from benchmarks.works import Group
from parity.run.errors import Mismatch

LOSS_APART = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Precision → largest relative difference of the first loss on the run's model."""


def record(
    loaded: LoadedModel,
    name: str,
    groups: list[Group],
    lines: list[dict[str, Any]],
    limit: float,
    budget: int,
) -> dict[str, Any]:
    """Return the comparison of a work's contenders as plain values.

    Raises:
        Mismatch: the first losses on the run's model differ.
    """
    reader = loaded.reader(budget)
    counts = [_counts(reader, group) for group in groups]
    flat, packed = (sum(count[column] for count in counts) for column in (0, 1))
    completed = [line for line in lines if "out_of_memory" not in line]
    our_lines = [line for line in completed if line["who"] == Ours.name]
    for line in completed:
        _same_loss(line, our_lines, loaded.dtype)
    for line in our_lines:
        seconds = min(item["seconds"] for item in line["runs"])
        line["model_flops"] = packed * _flops(loaded.parameters(), line) / seconds
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
            | {
                f"padded {item['who']}": item["padded"]
                for item in completed
                if item not in our_lines
            },
        },
        "lines": lines,
        "ratios": _ratios(our_lines, [line for line in completed if line["who"] != Ours.name]),
    }


def _ratios(
    our_lines: list[dict[str, Any]], peer_lines: list[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """Return how many times faster each of our settings is than each peer's faster setting."""
    best: dict[str, dict[str, Any]] = {}
    for line in sorted(peer_lines, key=lambda line: min(item["each"] for item in line["runs"])):
        best.setdefault(line["who"], line)
    return {
        f"{name}{_suffix(line)} / ours{_suffix(our_line)}": spread(
            their["each"] / our["each"]
            for their, our in zip(line["runs"], our_line["runs"], strict=True)
        )
        for our_line in our_lines
        for name, line in best.items()
    }


def _suffix(line: dict[str, Any]) -> str:
    return " (checkpointing)" if line["checkpointing"] else ""


def _counts(reader: Any, group: Group) -> tuple[int, int]:
    tokens = [
        *reader.tokenize(group.queries, works.PROMPT.query_max_length),
        *reader.tokenize(group.passages, works.PROMPT.passage_max_length),
    ]
    return sum(map(len, tokens)), sum(map(len, reader.packs(tokens)))


def _same_loss(line: dict[str, Any], our_lines: list[dict[str, Any]], dtype: torch.dtype) -> None:
    for our_line in our_lines:
        apart = abs(line["first_loss"] - our_line["first_loss"]) / abs(our_line["first_loss"])
        if not apart <= LOSS_APART[dtype]:
            raise Mismatch(
                f"{line['who']}: first loss {line['first_loss']:.5f}, ours "
                f"{our_line['first_loss']:.5f}; the limit is {LOSS_APART[dtype]:.0e} of it"
            )


def _flops(frozen: int, line: dict[str, Any]) -> int:
    """Return the operations per token in a step.

    A frozen weight costs 2 forward and 2 backward (to the activations), a trained one 2 and 4; with
    checkpointing the forward runs twice. The products of attention are not counted.
    """
    forward = 4 if line["checkpointing"] else 2
    return int(frozen * (forward + 2) + line["trained"] * (forward + 4))
