"""The last MLP runs only for the tokens that are read, with the same result."""

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


def record_mlp_tokens(model: Any) -> list[list[int]]:
    """Return a list for each layer that records the tokens in each forward of its MLP."""
    counts: list[list[int]] = []
    for layer in model.layers:
        rows: list[int] = []
        counts.append(rows)

        def record(_: Any, inputs: tuple[torch.Tensor, ...], rows: list[int] = rows) -> None:
            rows.append(inputs[0].shape[1])

        layer.mlp.gate_proj.register_forward_pre_hook(record)
    return counts


def test_the_last_mlp_runs_only_for_last_tokens(llama: BaseModel) -> None:
    sequences = models.sequences()
    encoder = models.load(llama, token_budget=4096)
    (pack,) = encoder.packs(sequences)
    counts = record_mlp_tokens(encoder.model)
    encoder.embed(sequences)
    assert counts == [[len(pack)], [len(pack.last)]]
    assert len(pack.last) < len(pack)


@pytest.mark.parametrize("family", models.CAUSAL)
def test_embeddings_equal_those_of_the_full_last_layer(family: str, tmp_path: Path) -> None:
    base, sequences = models.write(tmp_path, family), models.sequences()
    encoder, full = models.load(base), models.load(base)
    assert full.forward._last_layer is not None
    full.forward._last_layer.is_supported = False
    actual, expected = encoder.embed(sequences), full.embed(sequences)
    torch.testing.assert_close(
        torch.from_numpy(actual), torch.from_numpy(expected), rtol=0, atol=CLOSE
    )


def test_training_steps_run_full_layers_without_hooks(llama: BaseModel) -> None:
    sequences = models.sequences()
    encoder = models.load(llama, token_budget=4096)
    (pack,) = encoder.packs(sequences)
    encoder.embed(sequences)
    assert encoder.model.layers[-1].mlp._forward_hooks
    counts = record_mlp_tokens(encoder.model)
    encoder.states(pack)  # with a graph
    encoder.model.train()
    with torch.no_grad():
        encoder.states(pack)  # the first pass of GradCache
    assert counts == [[len(pack)] * 2] * 2
    assert not encoder.model.layers[-1].mlp._forward_hooks
    encoder.model.eval()
    encoder.embed(sequences)
    assert counts[-1][-1] == len(pack.last)


class MixingMlp(torch.nn.Linear):
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return super().forward(states - states.mean(dim=1, keepdim=True))


class TwoOutputsMlp(torch.nn.Linear):
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return super().forward(states), states  # type: ignore[return-value]  # as routers do


@pytest.mark.parametrize("kind", [MixingMlp, TwoOutputsMlp])
def test_an_mlp_that_mixes_tokens_runs_in_full(
    llama: BaseModel, kind: type[torch.nn.Linear]
) -> None:
    model = models.load(llama).model
    model.layers[-1].mlp = kind(32, 32)
    last_layer = LastLayer(model)
    assert not last_layer.is_supported
    (pack,) = trie.pack(models.sequences(), 10**6)
    with last_layer.restrict_to(pack, torch.device("cpu")):
        assert not model.layers[-1].mlp._forward_pre_hooks
