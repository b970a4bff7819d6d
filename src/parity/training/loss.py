"""Contrastive loss (InfoNCE) for both layouts of a batch, and distillation from a teacher."""

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
    """Return the mean cross-entropy of each query's positive among the unmasked passages, ().

    With FlagEmbedding's layout (target i·group, no mask) it equals FlagEmbedding's loss.

    Args:
        queries: (b, d) float32, unit norm.
        passages: (m, d) float32, unit norm.
        target: (b,) int64 column of each query's positive.
        masked: (b, m) bool, true for passages that are not negatives of the query; a mask on the
            positive is ignored.
        temperature: divisor of the cosines.

    Source: FlagOpen/FlagEmbedding: FlagEmbedding/abc/finetune/embedder/AbsModeling.py.
    """
    return _cross_entropy((queries @ passages.T) / temperature, masked, target)


@dataclass(frozen=True, slots=True)
class PassageGroups:
    """The passages of each query in a batch, positive first, and their teacher probabilities.

    Attributes:
        columns: (b, g) int64 columns of the passages; rows with fewer than g are padded with the
            positive.
        is_real: (b, g) bool, false for padding.
        targets: (b, g) float32 probabilities of the teacher; rows sum to 1, padding is 0.
    """

    columns: torch.Tensor
    is_real: torch.Tensor
    targets: torch.Tensor

    @classmethod
    def from_lists(
        cls,
        positions: Sequence[Sequence[int]],
        teacher: Sequence[Sequence[float]],
        device: torch.device,
    ) -> "PassageGroups":
        """Return the groups of a batch; the softmax of the teacher scores has no temperature.

        Args:
            positions: columns of each query's passages, positive first.
            teacher: teacher score of each of these passages.
            device: device of the embeddings.
        """
        width = max(map(len, positions))
        missing = [width - len(row) for row in positions]
        filled = [[*row, *[row[0]] * count] for row, count in zip(positions, missing, strict=True)]
        padding = float("-inf")
        scores = [[*row, *[padding] * count] for row, count in zip(teacher, missing, strict=True)]
        teacher_scores = torch.tensor(scores, dtype=torch.float32, device=device)  # (b, g)
        columns = torch.tensor(filled, device=device)  # (b, g)
        return cls(columns, teacher_scores != padding, torch.softmax(teacher_scores, dim=-1))


def distillation_loss(
    kind: str, scores: torch.Tensor, masked: torch.Tensor, group: PassageGroups
) -> torch.Tensor:
    """Return FlagEmbedding's loss with a teacher, ().

    `kl_div` adds to the contrastive loss the cross-entropy between the probabilities of teacher and
    student over the query's own passages. `m3_kd_loss` replaces the contrastive loss: each own
    passage in turn is the target among all passages except the earlier ones, weighted by its
    teacher probability. FlagEmbedding's `no_in_batch_neg` is not supported.

    Args:
        kind: `kl_div` or `m3_kd_loss`.
        scores: (b, m) float32, cosines divided by the temperature.
        masked: (b, m) bool, true for passages that are not negatives of the query; a mask on own
            passages is ignored.
        group: own passages of each query.

    Source: FlagOpen/FlagEmbedding: FlagEmbedding/abc/finetune/embedder/AbsModeling.py.
    """
    if kind == "kl_div":
        student = scores.gather(1, group.columns)  # (b, g)
        shares = student.masked_fill(~group.is_real, _lowest(scores)).log_softmax(dim=-1)
        loss = -(shares * group.targets).sum(dim=-1).mean()
        return loss + _cross_entropy(scores, masked, group.columns[:, 0])
    loss = scores.new_zeros(())
    remaining = scores.masked_fill(masked.scatter(1, group.columns, value=False), -torch.inf)
    for column, weight in zip(group.columns.T, group.targets.T, strict=True):  # g × (b,)
        entropy = torch.nn.functional.cross_entropy(remaining, column, reduction="none")  # (b,)
        loss = loss + (weight * entropy).mean()
        remaining = remaining.scatter(1, column[:, None], _lowest(scores))
    return loss


def _cross_entropy(
    scores: torch.Tensor, masked: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    hidden = masked.scatter(1, target[:, None], value=False)  # (b, m)
    return torch.nn.functional.cross_entropy(scores.masked_fill(hidden, -torch.inf), target)


def _lowest(scores: torch.Tensor) -> float:
    """Return FlagEmbedding's value for excluded scores: finite, so that 0 times it is 0."""
    return torch.finfo(scores.dtype).min
