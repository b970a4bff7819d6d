"""Gradient of one batch over its packs, in the memory of one pack (GradCache).

A batch runs directly if this process's tokens fit the budget, in one pack or in several short ones.
A larger batch goes through GradCache: every pack is embedded without a graph, the loss is
differentiated at the embeddings, and each pack runs again with a graph and backpropagates its rows
of that gradient to the weights.
Every process computes the loss of the full batch, so queries are compared with the passages of all
processes. The gradients summed over the processes are those of a single process.

Dropout is supported. A packed token that several sequences share is computed once, so they share
its dropout mask, while a padded batch draws a mask for each. The seed of the masks belongs to the
pack, not to the process: the second run of a pack has the masks of the first, and the number of
processes does not change them.
Measured effect on MAP (`benchmarks/README.md`, arms F to I): none if little is shared. If a batch
shares its few-shot examples, separate masks may be better; three seeds do not decide it.

Source: GradCache, Gao et al. 2021, arXiv 2101.06983.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from parity.retrieval.encoder import Encoder
from parity.retrieval.engine import device, oom_retry
from parity.retrieval.engine.trie import Pack
from parity.run.config.training import TrainingConfig
from parity.training.batches import Batch, at_once
from parity.training.loss import PassageGroups, distillation_loss, info_nce

Tokens = list[list[int]]


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of one batch, in addition to the gradients of the weights.

    Attributes:
        loss: loss of the full batch, () float32.
        tokens: tokens in the packs of all processes, with prefix sharing.
        graph_tokens: largest number of tokens whose graph this process held at the same time.
    """

    loss: torch.Tensor
    tokens: int
    graph_tokens: int


def add_gradient(
    encoder: Encoder,
    tokens: tuple[Tokens, Tokens],
    batch: Batch,
    config: TrainingConfig,
    *,
    seed: str,
    share: float = 1.0,
) -> StepResult:
    """Add the gradient of `share` · loss to the weights' `grad`; return the loss and token counts.

    This process adds only the gradient of its own packs. GPU work is queued asynchronously; reading
    the loss waits for it.

    Args:
        encoder: encoder with trainable weights, in training mode for dropout.
        tokens: token ids of the queries and of the passages.
        batch: queries, passages, positives and masks.
        config: temperature, distillation and the token budget.
        seed: seed of the step and batch; dropout masks depend on it and on the index of the pack.
        share: factor of the loss, for gradient accumulation.

    Raises:
        OutOfMemory: memory ran out in this process or another; the gradient is incomplete.
    """
    packs = encoder.packs([*tokens[0], *tokens[1]], config.token_budget)
    owners = encoder.workers.assign_ranks([len(pack) for pack in packs])
    owned = [index for index, rank in enumerate(owners) if rank == encoder.workers.rank]
    owned_tokens = sum(len(packs[index]) for index in owned)
    is_direct = at_once(len(owned), owned_tokens, config.token_budget)
    with oom_retry.raise_in_all(encoder.workers, encoder.device), torch.set_grad_enabled(is_direct):
        states = {index: _states(encoder, packs[index], f"{seed}/{index}") for index in owned}
    vectors = _gather(encoder, packs, owners, states).requires_grad_()  # (b + m, d)
    with oom_retry.raise_in_all(encoder.workers, encoder.device):
        loss = batch_loss(vectors, batch, config)
        (gradients,) = torch.autograd.grad(loss * share, vectors)  # (b + m, d)
        for index in owned:
            output = (
                states[index] if is_direct else _states(encoder, packs[index], f"{seed}/{index}")
            )
            rows = device.to_device(packs[index].owner, encoder.device)
            output.backward(gradients[rows])  # type: ignore[no-untyped-call]  # torch's own
    largest = max((len(packs[index]) for index in owned), default=0)
    return StepResult(loss.detach(), sum(map(len, packs)), owned_tokens if is_direct else largest)


def batch_loss(vectors: torch.Tensor, batch: Batch, config: TrainingConfig) -> torch.Tensor:
    """Return the loss of one batch at its embeddings.

    Args:
        vectors: (b + m, d) float32, unit norm: b queries, then m passages.
        batch: queries, passages, positives and masks; with teacher scores for distillation.
        config: temperature and distillation.
    """
    count, width = len(batch.query_ids), len(batch.passages)
    queries, passages = vectors[:count], vectors[count:]  # (b, d), (m, d)
    target = device.to_device(batch.target, vectors.device)  # (b,)
    is_masked = np.zeros((count, width), dtype=bool)
    for row, hidden in enumerate(batch.masked):
        is_masked[row, list(hidden)] = True
    masked = device.to_device(is_masked, vectors.device)  # (b, m)
    if config.distillation == "none":
        return info_nce(queries, passages, target, masked, config.temperature)
    group = PassageGroups.from_lists(batch.groups, batch.teacher, vectors.device)
    scores = (queries @ passages.T) / config.temperature
    return distillation_loss(config.distillation, scores, masked, group)


def _states(encoder: Encoder, pack: Pack, seed: str) -> torch.Tensor:
    """Return the vectors of a pack, (m, d), with dropout drawn only from `seed`."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little")
    torch.manual_seed(number >> 1)
    return encoder.states(pack)  # (m, d)


def _gather(
    encoder: Encoder, packs: list[Pack], owners: tuple[int, ...], states: dict[int, torch.Tensor]
) -> torch.Tensor:
    """Return the vectors of all packs, (n, d), without a graph, in the order of the sequences."""
    width = encoder.model.config.hidden_size
    parts = [
        states[index].detach()
        if index in states
        else torch.zeros(len(pack.owner), width, device=encoder.device)
        for index, pack in enumerate(packs)
    ]
    vectors = torch.zeros(sum(len(pack.owner) for pack in packs), width, device=encoder.device)
    for pack, part in zip(packs, encoder.workers.share(parts, owners), strict=True):
        vectors[device.to_device(pack.owner, encoder.device)] = part
    return vectors
