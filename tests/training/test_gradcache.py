"""GradCache over packs gives the gradient of one graph over all packs."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import pytest
import torch

from parity.competition.query import Position, QueryId
from parity.retrieval.encoder import Encoder
from parity.retrieval.models.base_model import BaseModel
from parity.run.config.training import TrainingConfig
from parity.training import trainer
from parity.training.batches import Batch
from parity.training.checkpoint import CheckpointState
from parity.training.gradcache import Tokens, add_gradient, batch_loss
from parity.training.trainer import TrainingPlan

SEQUENCES = models.sequences()
COUNT = 8
TOKENS = (SEQUENCES[:COUNT], SEQUENCES[COUNT:])
BATCH = Batch(
    tuple(QueryId(f"{row}_A") for row in range(COUNT)),
    tuple(map(Position, range(len(TOKENS[1])))),
    tuple(range(COUNT)),
    ((9, 10), *((),) * (COUNT - 1)),
)
Gradients = dict[str, torch.Tensor]


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"temperature": 0.05, "r": 4, **changes})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("bases") / "llama", "llama")


def build_encoder(base: BaseModel, config: TrainingConfig) -> Encoder:
    encoder = models.load(base)
    models.attach(encoder, lora_dropout=config.lora_dropout)
    encoder.model.train()
    return encoder


def gradients_of(encoder: Encoder) -> Gradients:
    return {
        name: weight.grad.clone()
        for name, weight in encoder.model.named_parameters()
        if weight.grad is not None
    }


def full_loss(
    encoder: Encoder, tokens: tuple[Tokens, Tokens], config: TrainingConfig, seed: str
) -> torch.Tensor:
    """Return the loss of `BATCH` with the graphs of all packs in memory."""
    packs = encoder.packs([*tokens[0], *tokens[1]], config.token_budget)
    parts, owner = [], []
    for index, pack in enumerate(packs):
        name = hashlib.sha256(f"{seed}/{index}".encode()).digest()[:8]
        torch.manual_seed(int.from_bytes(name, "little") >> 1)
        parts.append(encoder.states(pack))
        owner += pack.owner.tolist()
    return batch_loss(torch.cat(parts)[torch.tensor(owner).argsort()], BATCH, config)


def one_graph(base: BaseModel, config: TrainingConfig) -> tuple[float, Gradients]:
    """Return loss and gradients from one backward through the graphs of all packs."""
    encoder = build_encoder(base, config)
    loss = full_loss(encoder, TOKENS, config, "s")
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    return loss.item(), gradients_of(encoder)


def with_gradcache(
    base: BaseModel, config: TrainingConfig, share: float = 1.0
) -> tuple[float, Gradients, int]:
    """Return loss, gradients and the number of tokens in all forwards."""
    encoder = build_encoder(base, config)
    pack_sizes: list[int] = []
    states = encoder.states

    def counted(pack: Any) -> torch.Tensor:
        pack_sizes.append(len(pack))
        return states(pack)

    encoder.states = counted  # type: ignore[method-assign]
    loss = add_gradient(encoder, TOKENS, BATCH, config, seed="s", share=share).loss.item()
    return loss, gradients_of(encoder), sum(pack_sizes)


def assert_close(actual: Gradients, expected: Gradients) -> None:
    assert actual.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert largest > 1e-3
    for name, gradient_ in actual.items():
        assert (gradient_ - expected[name]).abs().max() <= 1e-6 * largest, name


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("budget", [64, 100, 4096])
def test_the_gradient_equals_that_of_one_graph_over_the_same_packs(
    base: BaseModel, budget: int, dropout: float
) -> None:
    config = settings(token_budget=budget, lora_dropout=dropout)
    expected_loss, expected = one_graph(base, config)
    loss, gradients, _ = with_gradcache(base, config)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert_close(gradients, expected)


def test_packs_do_not_change_gradients_without_dropout(base: BaseModel) -> None:
    assert_close(
        with_gradcache(base, settings(token_budget=64))[1], with_gradcache(base, settings())[1]
    )


def test_the_gradient_is_proportional_to_the_share_of_the_loss(base: BaseModel) -> None:
    full, scaled = (with_gradcache(base, settings(token_budget=64), share) for share in (1.0, 0.25))
    assert full[0] == scaled[0]
    assert_close({name: 4 * gradient for name, gradient in scaled[1].items()}, full[1])


def test_one_pack_runs_once_and_several_packs_run_twice(base: BaseModel) -> None:
    encoder = build_encoder(base, settings())
    for budget, passes in ((4096, 1), (64, 2)):
        packs = encoder.packs([*TOKENS[0], *TOKENS[1]], budget)
        assert (len(packs) == 1) == (passes == 1)
        assert with_gradcache(base, settings(token_budget=budget))[2] == passes * sum(
            map(len, packs)
        )


def test_short_packs_that_fit_the_budget_together_run_once(tmp_path: Path) -> None:
    encoder = models.load(models.write(tmp_path, "bert"), pooling="mean")
    models.attach(encoder, target_modules=("query", "value"))
    sizes: list[int] = []
    encoder.model.register_forward_hook(
        lambda _module, _args, out: sizes.append(out.last_hidden_state[..., 0].numel())
    )
    for budget, passes in ((4096, 1), (64, 2)):
        packs = encoder.packs([*TOKENS[0], *TOKENS[1]], budget)
        assert len(packs) > 5  # at least one for each length
        sizes.clear()
        add_gradient(encoder, TOKENS, BATCH, settings(token_budget=budget), seed="s")
        assert sum(sizes) == passes * sum(map(len, packs))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("budget", [64, 100])
def test_accumulated_micro_batches_have_the_gradient_of_their_mean_loss(
    base: BaseModel, budget: int, dropout: float
) -> None:
    config = settings(token_budget=budget, lora_dropout=dropout, gradient_accumulation_steps=3)
    lists = [SEQUENCES, models.sequences(1), models.sequences(2)]
    pairs = [(queries[:COUNT], queries[COUNT:]) for queries in lists]
    encoder = build_encoder(base, config)
    assert all(len(encoder.packs([*queries, *passages], budget)) > 1 for queries, passages in pairs)
    losses = [
        full_loss(encoder, tokens, config, f"0/5/{index}") for index, tokens in enumerate(pairs)
    ]
    mean = torch.stack(losses).mean()
    mean.backward()  # type: ignore[no-untyped-call]  # torch's own
    expected = gradients_of(encoder)
    encoder = build_encoder(base, config)
    micro = [replace(BATCH, query_ids=(QueryId(str(index)),) * COUNT) for index in range(3)]
    plan = TrainingPlan((tuple(micro),), lambda batch: pairs[int(batch.query_ids[0])], "key")
    start = CheckpointState(5, 9, True, "key", budget)
    state, loss = trainer._step(
        encoder, plan, config, micro, start, models.zeroing_optimizer(encoder)
    )
    assert state.step == 6
    assert loss.item() == pytest.approx(mean.item(), rel=1e-6)
    assert_close(gradients_of(encoder), expected)
