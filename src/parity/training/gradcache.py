"""The gradient of one batch over its packs, in the memory of one pack.

A batch whose tokens here fit the budget, in one pack or in several short ones, runs directly. A
larger one goes through GradCache: every pack is embedded without a graph, the loss gives its
gradient at the embeddings, and each pack is run again with a graph and takes its rows of that
gradient back into the weights.
The loss is that of the whole batch in every process, so queries meet the passages of all of them;
gradients that the processes add up are those of one process.

Dropout is allowed. A node that several sequences share is computed once, so they share its mask,
where a padded step draws one for each of them. Masks are drawn from a seed of the pack, not of the
process: a pack that is run again has the masks of its first run, and however many processes there
are, the masks are the same.
Measured on MAP (`benchmarks/README.md`, arms F to I): nothing where little is shared; where a batch
shares its few-shot examples, masks of their own may be better, which three seeds do not settle.

Source: GradCache, Gao et al. 2021, arXiv 2101.06983.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from parity.retrieval.encoder import Encoder
from parity.retrieval.engine import device, oom_retry
from parity.retrieval.engine.trie import Pack
from parity.run.config.run_file import TrainingConfig
from parity.training.batches import Batch, at_once
from parity.training.loss import PassageGroups, distilled, info_nce

Tokens = list[list[int]]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a batch gave, beside the gradients in the weights.

    Attributes:
        loss: of the whole batch, ().
        tokens: in the packs of all processes, shared prefixes once.
        held: of them, those whose graph lay in this process's memory at once.
    """

    loss: torch.Tensor
    tokens: int
    held: int


def gradient(
    encoder: Encoder,
    tokens: tuple[Tokens, Tokens],
    batch: Batch,
    config: TrainingConfig,
    *,
    seed: str,
    share: float = 1.0,
) -> StepResult:
    """Add the gradient of `share` times a batch's loss to the weights; return what it gave.

    What is added is this process's part: that of the packs it owns. A GPU is given its work and
    not waited for: to read the loss waits.

    Args:
        encoder: its model as training wants it, in training mode where dropout is on.
        tokens: token ids of the queries and of the passages.
        batch: who meets whom.
        config: temperature, distillation and the token budget.
        seed: names the step and the batch; dropout draws from it and the pack's index.
        share: what the loss is multiplied by before its gradient is taken.

    Raises:
        Short: memory ran out, here or in another process; the gradient is half added.
    """
    packs = encoder.packs([*tokens[0], *tokens[1]], config.token_budget)
    owners = encoder.workers.deal([len(pack) for pack in packs])
    mine = [index for index, rank in enumerate(owners) if rank == encoder.workers.rank]
    nodes = sum(len(packs[index]) for index in mine)
    direct = at_once(len(mine), nodes, config.token_budget)
    with oom_retry.together(encoder.workers, encoder.device), torch.set_grad_enabled(direct):
        own = {index: _states(encoder, packs[index], f"{seed}/{index}") for index in mine}
    vectors = _gathered(encoder, packs, owners, own).requires_grad_()  # (b + m, d)
    with oom_retry.together(encoder.workers, encoder.device):
        loss = batch_loss(vectors, batch, config)
        (slopes,) = torch.autograd.grad(loss * share, vectors)  # (b + m, d)
        for index in mine:
            again = own[index] if direct else _states(encoder, packs[index], f"{seed}/{index}")
            rows = device.sent(packs[index].owner, encoder.device)
            again.backward(slopes[rows])  # type: ignore[no-untyped-call]  # torch's own
    widest = max((len(packs[index]) for index in mine), default=0)
    return StepResult(loss.detach(), sum(map(len, packs)), nodes if direct else widest)


def batch_loss(vectors: torch.Tensor, batch: Batch, config: TrainingConfig) -> torch.Tensor:
    """Return the loss of one batch at its embeddings.

    Args:
        vectors: (b + m, d) float32, unit norm: queries, then passages.
        batch: who meets whom; with a teacher's scores where `config.distil` wants them.
        config: temperature and distillation.
    """
    count, width = len(batch.query_ids), len(batch.passages)
    queries, passages = vectors[:count], vectors[count:]  # (b, d), (m, d)
    target = device.sent(batch.target, vectors.device)  # (b,)
    hides = np.zeros((count, width), dtype=bool)
    for row, hidden in enumerate(batch.masked):
        hides[row, list(hidden)] = True
    masked = device.sent(hides, vectors.device)  # (b, m)
    if config.distillation == "none":
        return info_nce(queries, passages, target, masked, config.temperature)
    group = PassageGroups.of(batch.own, batch.teacher, vectors.device)
    scores = (queries @ passages.T) / config.temperature
    return distilled(config.distillation, scores, masked, group)


def _states(encoder: Encoder, pack: Pack, seed: str) -> torch.Tensor:
    """Run a pack with dropout drawn from `seed` alone."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little")
    torch.manual_seed(number >> 1)
    return encoder.states(pack)  # (m, d)


def _gathered(
    encoder: Encoder, packs: list[Pack], owners: tuple[int, ...], own: dict[int, torch.Tensor]
) -> torch.Tensor:
    """Return the vectors (n, d) of all processes' packs, without a graph, in the order asked."""
    width = encoder.model.config.hidden_size
    parts = [
        own[index].detach()
        if index in own
        else torch.zeros(len(pack.owner), width, device=encoder.device)
        for index, pack in enumerate(packs)
    ]
    vectors = torch.zeros(sum(len(pack.owner) for pack in packs), width, device=encoder.device)
    for pack, part in zip(packs, encoder.workers.share(parts, owners), strict=True):
        vectors[device.sent(pack.owner, encoder.device)] = part
    return vectors
