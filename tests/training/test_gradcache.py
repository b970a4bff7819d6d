"""GradCache over packs leaves the gradient that one graph over all packs leaves."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import pytest
import torch

from parity.competition.query import MisconceptionId, QueryId
from parity.retrieval.encoder import Encoder
from parity.retrieval.models.base_model import BaseModel
from parity.run.config.run_file import TrainingConfig
from parity.training import trainer
from parity.training.batches import Batch
from parity.training.checkpoint import CheckpointState
from parity.training.gradcache import Tokens, batch_loss, gradient
from parity.training.trainer import TrainingPlan

SEQUENCES = models.sequences()
COUNT = 8
TOKENS = (SEQUENCES[:COUNT], SEQUENCES[COUNT:])
BATCH = Batch(
    tuple(QueryId(f"{row}_A") for row in range(COUNT)),
    tuple(map(MisconceptionId, range(len(TOKENS[1])))),
    tuple(range(COUNT)),
    ((9, 10), *((),) * (COUNT - 1)),
)
Gradients = dict[str, torch.Tensor]


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"temperature": 0.05, "r": 4, **changes})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("bases") / "llama", "llama")


def prepared(base: BaseModel, config: TrainingConfig) -> Encoder:
    encoder = models.load(base)
    models.attach(encoder, lora_dropout=config.lora_dropout)
    encoder.model.train()
    return encoder


def taken(encoder: Encoder) -> Gradients:
    return {
        name: weight.grad.clone()
        for name, weight in encoder.model.named_parameters()
        if weight.grad is not None
    }


def whole(
    encoder: Encoder, tokens: tuple[Tokens, Tokens], config: TrainingConfig, seed: str
) -> torch.Tensor:
    """Return the loss of `BATCH` with the graphs of all packs kept."""
    packs = encoder.packs([*tokens[0], *tokens[1]], config.token_budget)
    parts, owner = [], []
    for index, pack in enumerate(packs):
        name = hashlib.sha256(f"{seed}/{index}".encode()).digest()[:8]
        torch.manual_seed(int.from_bytes(name, "little") >> 1)
        parts.append(encoder.states(pack))
        owner += pack.owner.tolist()
    return batch_loss(torch.cat(parts)[torch.tensor(owner).argsort()], BATCH, config)


def direct(base: BaseModel, config: TrainingConfig) -> tuple[float, Gradients]:
    """Keep the graphs of all packs and go back through them at once."""
    encoder = prepared(base, config)
    loss = whole(encoder, TOKENS, config, "s")
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    return loss.item(), taken(encoder)


def cached(
    base: BaseModel, config: TrainingConfig, share: float = 1.0
) -> tuple[float, Gradients, int]:
    """Return loss, gradients and the tokens that went forward."""
    encoder = prepared(base, config)
    ran: list[int] = []
    states = encoder.states

    def counted(pack: Any) -> torch.Tensor:
        ran.append(len(pack))
        return states(pack)

    encoder.states = counted  # type: ignore[method-assign]
    loss = gradient(encoder, TOKENS, BATCH, config, seed="s", share=share).loss.item()
    return loss, taken(encoder), sum(ran)


def close(one: Gradients, other: Gradients) -> None:
    assert one.keys() == other.keys()
    largest = max(float(gradient.abs().max()) for gradient in other.values())
    assert largest > 1e-3
    for name, gradient_ in one.items():
        assert (gradient_ - other[name]).abs().max() <= 1e-6 * largest, name


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("budget", [64, 100, 4096])
def test_the_gradient_is_that_of_one_graph_over_the_same_packs(
    base: BaseModel, budget: int, dropout: float
) -> None:
    config = settings(token_budget=budget, lora_dropout=dropout)
    wanted, expected = direct(base, config)
    loss, found, _ = cached(base, config)
    assert loss == pytest.approx(wanted, rel=1e-6)
    close(found, expected)


def test_packs_change_no_gradient_without_dropout(base: BaseModel) -> None:
    close(cached(base, settings(token_budget=64))[1], cached(base, settings())[1])


def test_a_share_of_the_loss_has_that_share_of_the_gradient(base: BaseModel) -> None:
    whole, part = (cached(base, settings(token_budget=64), share) for share in (1.0, 0.25))
    assert whole[0] == part[0]
    close({name: 4 * one for name, one in part[1].items()}, whole[1])


def test_one_pack_goes_forward_once_and_several_twice(base: BaseModel) -> None:
    encoder = prepared(base, settings())
    for budget, times in ((4096, 1), (64, 2)):
        packs = encoder.packs([*TOKENS[0], *TOKENS[1]], budget)
        assert (len(packs) == 1) == (times == 1)
        assert cached(base, settings(token_budget=budget))[2] == times * sum(map(len, packs))


def test_short_packs_of_equal_lengths_that_fit_together_go_forward_once(tmp_path: Path) -> None:
    encoder = models.load(models.write(tmp_path, "bert"), pooling="mean")
    models.attach(encoder, target_modules=("query", "value"))
    ran: list[int] = []
    encoder.model.register_forward_hook(
        lambda _module, _args, out: ran.append(out.last_hidden_state[..., 0].numel())
    )
    for budget, times in ((4096, 1), (64, 2)):
        packs = encoder.packs([*TOKENS[0], *TOKENS[1]], budget)
        assert len(packs) > 5  # one for each length at least
        ran.clear()
        gradient(encoder, TOKENS, BATCH, settings(token_budget=budget), seed="s")
        assert sum(ran) == times * sum(map(len, packs))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("budget", [64, 100])
def test_accumulated_micro_batches_of_several_packs_have_the_gradient_of_their_mean(
    base: BaseModel, budget: int, dropout: float
) -> None:
    config = settings(token_budget=budget, lora_dropout=dropout, gradient_accumulation_steps=3)
    found = [SEQUENCES, models.sequences(1), models.sequences(2)]
    asked = [(one[:COUNT], one[COUNT:]) for one in found]
    encoder = prepared(base, config)
    assert all(len(encoder.packs([*one, *other], budget)) > 1 for one, other in asked)
    losses = [whole(encoder, tokens, config, f"0/5/{place}") for place, tokens in enumerate(asked)]
    mean = torch.stack(losses).mean()
    mean.backward()  # type: ignore[no-untyped-call]  # torch's own
    expected = taken(encoder)
    encoder = prepared(base, config)
    micro = [replace(BATCH, query_ids=(QueryId(str(place)),) * COUNT) for place in range(3)]
    course = TrainingPlan((tuple(micro),), lambda item: asked[int(item.query_ids[0])], "key")
    start = CheckpointState(5, 9, True, "key", budget)
    state, loss = trainer._step(encoder, course, config, micro, start, models.idle(encoder))
    assert state.step == 6
    assert loss.item() == pytest.approx(mean.item(), rel=1e-6)
    close(taken(encoder), expected)
