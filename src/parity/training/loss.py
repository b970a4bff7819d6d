"""The contrastive loss, one function for both layouts of a batch."""

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
    scores = (queries @ passages.T) / temperature  # (b, m)
    hidden = masked.scatter(1, target[:, None], value=False)  # (b, m)
    return torch.nn.functional.cross_entropy(scores.masked_fill(hidden, -torch.inf), target)
