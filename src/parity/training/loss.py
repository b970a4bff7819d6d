"""The contrastive loss, one function for both layouts of a batch, and what a teacher adds to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


def info_nce(
    queries: torch.Tensor,
    passages: torch.Tensor,
    target: torch.Tensor,
    masked: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Return the mean cross-entropy of each query's positive among the passages not masked.

    With FlagEmbedding's layout (target i·group, nothing masked) it is FlagEmbedding's loss.

    Args:
        queries: (b, d) float32, unit norm.
        passages: (m, d) float32, unit norm.
        target: (b,) int64, column of each query's positive.
        masked: (b, m) bool, true where a passage is no negative; a query's own target stays.
        temperature: what cosines are divided by.

    Source: FlagOpen/FlagEmbedding: FlagEmbedding/abc/finetune/embedder/AbsModeling.py.
    """
    return _entropy((queries @ passages.T) / temperature, masked, target)


@dataclass(frozen=True, slots=True)
class PassageGroups:
    """Each query's own passages in a batch, positive first, and what a teacher gives them.

    Attributes:
        places: (b, g) int64 columns; where a query has fewer than g, its positive's again.
        real: (b, g) bool, false where the positive only fills the row.
        targets: (b, g) float32, the teacher's share of each; a row sums to 1, 0 where not real.
    """

    places: torch.Tensor
    real: torch.Tensor
    targets: torch.Tensor

    @classmethod
    def of(
        cls,
        own: Sequence[Sequence[int]],
        teacher: Sequence[Sequence[float]],
        device: torch.device,
    ) -> "PassageGroups":
        """Return the groups of a batch; the softmax of a teacher's scores has no temperature.

        Args:
            own: places of each query's passages.
            teacher: the teacher's score of each of them.
            device: where the embeddings lie.
        """
        width = max(map(len, own))
        lacks = [width - len(row) for row in own]
        filled = [[*row, *[row[0]] * lack] for row, lack in zip(own, lacks, strict=True)]
        nothing = float("-inf")
        scores = [[*row, *[nothing] * lack] for row, lack in zip(teacher, lacks, strict=True)]
        given = torch.tensor(scores, dtype=torch.float32, device=device)  # (b, g)
        places = torch.tensor(filled, device=device)  # (b, g)
        return cls(places, given != nothing, torch.softmax(given, dim=-1))


def distilled(
    kind: str, scores: torch.Tensor, masked: torch.Tensor, group: PassageGroups
) -> torch.Tensor:
    """Return FlagEmbedding's loss with a teacher.

    `kl_div` adds to the contrastive loss the cross-entropy between the teacher's shares of the
    query's own passages and the student's. `m3_kd_loss` replaces it: each own passage is in turn
    the target among all passages, those before it left out, weighed by the teacher's share. A
    batch of that package whose file says `no_in_batch_neg` is scored otherwise; here none is.

    Args:
        kind: `kl_div` or `m3_kd_loss`.
        scores: (b, m) float32, cosines over temperature.
        masked: (b, m) bool, true where a passage is no negative; own passages stay.
        group: the own passages.

    Source: FlagOpen/FlagEmbedding: FlagEmbedding/abc/finetune/embedder/AbsModeling.py.
    """
    if kind == "kl_div":
        student = scores.gather(1, group.places)  # (b, g)
        shares = student.masked_fill(~group.real, _least(scores)).log_softmax(dim=-1)
        loss = -(shares * group.targets).sum(dim=-1).mean()
        return loss + _entropy(scores, masked, group.places[:, 0])
    loss = scores.new_zeros(())
    left = scores.masked_fill(masked.scatter(1, group.places, value=False), -torch.inf)
    for place, weight in zip(group.places.T, group.targets.T, strict=True):  # g times (b,)
        entropy = torch.nn.functional.cross_entropy(left, place, reduction="none")  # (b,)
        loss = loss + (weight * entropy).mean()
        left = left.scatter(1, place[:, None], _least(scores))
    return loss


def _entropy(scores: torch.Tensor, masked: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    hidden = masked.scatter(1, target[:, None], value=False)  # (b, m)
    return torch.nn.functional.cross_entropy(scores.masked_fill(hidden, -torch.inf), target)


def _least(scores: torch.Tensor) -> float:
    """Return what FlagEmbedding puts for a score that is left out: finite, so 0 times it is 0."""
    return torch.finfo(scores.dtype).min
