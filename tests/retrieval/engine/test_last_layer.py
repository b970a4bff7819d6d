"""Of the last layer only what is read runs to its end, and what is read stays the same."""

from pathlib import Path
from typing import Any

import models
import pytest
import torch

from parity.retrieval.engine import trie
from parity.retrieval.engine.last_layer import LastLayer
from parity.retrieval.models.base_model import BaseModel

CLOSE = 1e-5


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("llama"), "llama")


def seen_by_mlps(model: Any) -> list[list[int]]:
    """Return, for each layer, a list that fills with the nodes its MLP's first matrix is given."""
    seen: list[list[int]] = []
    for layer in model.layers:
        rows: list[int] = []
        seen.append(rows)

        def note(_: Any, given: tuple[torch.Tensor, ...], rows: list[int] = rows) -> None:
            rows.append(given[0].shape[1])

        layer.mlp.gate_proj.register_forward_pre_hook(note)
    return seen


def test_the_last_mlp_runs_for_the_ends_of_sequences_alone(llama: BaseModel) -> None:
    asked = models.sequences()
    encoder = models.load(llama, token_budget=4096)
    (pack,) = encoder.packs(asked)
    seen = seen_by_mlps(encoder.model)
    encoder.embed(asked)
    assert seen == [[len(pack)], [len(pack.last)]]
    assert len(pack.last) < len(pack)


@pytest.mark.parametrize("family", models.CAUSAL)
def test_what_is_read_is_what_a_whole_layer_gives(family: str, tmp_path: Path) -> None:
    base, asked = models.write(tmp_path, family), models.sequences()
    encoder, whole = models.load(base), models.load(base)
    assert whole.forward._tail is not None
    whole.forward._tail.able = False
    found, expected = encoder.embed(asked), whole.embed(asked)
    torch.testing.assert_close(
        torch.from_numpy(found), torch.from_numpy(expected), rtol=0, atol=CLOSE
    )


def test_a_step_that_learns_runs_whole_layers_without_hooks(llama: BaseModel) -> None:
    asked = models.sequences()
    encoder = models.load(llama, token_budget=4096)
    (pack,) = encoder.packs(asked)
    encoder.embed(asked)
    assert encoder.model.layers[-1].mlp._forward_hooks
    seen = seen_by_mlps(encoder.model)
    encoder.states(pack)  # with a graph
    encoder.model.train()
    with torch.no_grad():
        encoder.states(pack)  # the first pass of two
    assert seen == [[len(pack)] * 2] * 2
    assert not encoder.model.layers[-1].mlp._forward_hooks
    encoder.model.eval()
    encoder.embed(asked)
    assert seen[-1][-1] == len(pack.last)


class Mixing(torch.nn.Linear):
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return super().forward(states - states.mean(dim=1, keepdim=True))


class Several(torch.nn.Linear):
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return super().forward(states), states  # type: ignore[return-value]  # as routers do


@pytest.mark.parametrize("kind", [Mixing, Several])
def test_an_mlp_that_does_not_go_node_by_node_runs_whole(
    llama: BaseModel, kind: type[torch.nn.Linear]
) -> None:
    model = models.load(llama).model
    model.layers[-1].mlp = kind(32, 32)
    tail = LastLayer(model)
    assert not tail.able
    (pack,) = trie.pack(models.sequences(), 10**6)
    with tail.only(pack, torch.device("cpu")):
        assert not model.layers[-1].mlp._forward_pre_hooks
