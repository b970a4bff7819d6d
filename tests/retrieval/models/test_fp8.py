"""Products in 8-bit floats: what is rounded, what is not, and how far it carries."""

from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.retrieval.models import adapter, fp8
from parity.retrieval.models.base_model import BaseModel
from parity.retrieval.models.fp8 import Rounded, rounded
from parity.run.errors import BadConfig

CPU = torch.device("cpu")
HALF_STEP = 2**-4  # e4m3 keeps three bits behind the first
SMALLEST = 2**-9  # its smallest value, beside a largest of 448
SHAPE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48}

values = st.floats(-(2.0**99), 2.0**99, width=32)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("llama"), "llama")


@settings(deadline=None)
@given(rows=st.lists(st.lists(values, min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_row_is_rounded_to_a_sixteenth_of_each_value(rows: list[list[float]]) -> None:
    given_ = torch.tensor(rows)
    found, scale = rounded(given_)
    again = found.float() * scale
    assert torch.isfinite(again).all()
    bound = (given_.abs() * HALF_STEP * 1.001).maximum(scale * SMALLEST)
    assert ((again - given_).abs() <= bound).all()
    largest = given_.abs().amax(dim=1)
    assert (found.float().abs().amax(dim=1)[largest > 1e-9] == 448).all()


@pytest.mark.parametrize("bias", [False, True])
def test_a_rounded_layer_multiplies_the_rounded_values(bias: bool) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(32, 48, bias=bias)
    states = torch.randn(2, 7, 32)
    weight, by = rounded(plain.weight.detach())
    rows, scale = rounded(states.view(-1, 32))
    expected = (rows.double() * scale) @ (weight.double() * by).t()
    expected = expected.float() + (plain.bias if bias else 0)
    found = Rounded(plain)(states)
    assert found.shape == (2, 7, 48)
    torch.testing.assert_close(found.view(-1, 48), expected, rtol=1e-5, atol=1e-5)
    assert (found - plain(states)).abs().max() > 1e-3


def test_all_matrices_of_the_layers_are_rounded_and_nothing_else(llama: BaseModel) -> None:
    whole, model = models.load(llama).model, models.load(llama, quantize="fp8").model
    kept = {name: one for name, one in whole.named_modules() if type(one) is torch.nn.Linear}
    now = {name: one for name, one in model.named_modules() if isinstance(one, Rounded)}
    assert sorted(now) == sorted(kept)
    assert len(now) == 2 * 7
    assert not [module for module in model.modules() if type(module) is torch.nn.Linear]
    assert torch.equal(model.embed_tokens.weight, whole.embed_tokens.weight)


@pytest.mark.parametrize("family", ["mistral", "qwen2", "gemma2", "bert"])
def test_embeddings_are_near_those_of_whole_products(family: str, tmp_path: Path) -> None:
    base, asked = models.write(tmp_path, family), models.sequences()
    pooling = "mean" if family == "bert" else "last"
    found = models.load(base, quantize="fp8", pooling=pooling).embed(asked)
    whole = models.load(base, pooling=pooling).embed(asked)
    cosines = (found * whole).sum(axis=1)
    assert cosines.mean() > 0.98
    assert cosines.max() < 1 - 1e-6


def test_an_adapter_is_not_rounded_and_is_felt(llama: BaseModel, tmp_path: Path) -> None:
    asked = models.sequences()
    trained = models.load(llama)
    models.attach(trained)
    adapter.save(trained.model, tmp_path / "adapter", llama, layers=0, template="t")
    encoder = models.load(llama, tmp_path / "adapter", quantize="fp8")
    kept = [name for name, one in encoder.model.named_modules() if type(one) is torch.nn.Linear]
    assert len(kept) == 2 * 2 * 7
    assert all("lora_" in name for name in kept)
    found, expected = encoder.embed(asked), trained.embed(asked)
    bare = models.load(llama, quantize="fp8").embed(asked)
    assert (found * expected).sum(axis=1).mean() > 0.98
    assert np.abs(found - bare).max(axis=1).min() > 1e-2


def test_sides_that_the_units_cannot_take_stay_whole(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama", intermediate_size=40)
    model = models.load(base, quantize="fp8").model
    kept = {
        name.split(".")[-1] for name, one in model.named_modules() if type(one) is torch.nn.Linear
    }
    assert kept == {"gate_proj", "up_proj", "down_proj"}


def test_a_model_with_nothing_to_round_is_refused(tmp_path: Path) -> None:
    base = models.write(
        tmp_path,
        "llama",
        hidden_size=24,
        intermediate_size=40,
        num_attention_heads=3,
        num_key_value_heads=1,
    )
    with pytest.raises(BadConfig, match="llama has no layers that it rounds; use 'none'"):
        models.load(base, quantize="fp8")


def test_a_gpu_without_units_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    fp8.check(CPU)
    with pytest.raises(BadConfig, match="NVIDIA A100 has no units for it"):
        fp8.check(torch.device("cuda", 0))


@pytest.mark.gpu
@pytest.mark.parametrize("bias", [False, True])
def test_the_units_multiply_what_a_cpu_does_as_if(bias: bool) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(4096, 1024, bias=bias).bfloat16()
    states = torch.randn(1, 300, 4096).bfloat16()
    expected = Rounded(plain)(states).float()
    found = Rounded(plain.cuda())(states.cuda()).float().cpu()
    assert (found - expected).norm() <= 0.01 * expected.norm()  # bf16, and sums of fewer bits


@pytest.mark.gpu
def test_compiled_layers_give_what_a_cpu_gives(tmp_path: Path) -> None:
    base = models.write(tmp_path, "mistral", head_dim=16)
    asked = [[*row, *models.sequences(seed=8)[0]] for row in models.sequences(seed=7, count=120)]
    encoder = models.load(base, device="cuda", quantize="fp8", token_budget=4096)
    assert encoder.forward.kind == "flex"
    found, expected = encoder.embed(asked), models.load(base, quantize="fp8").embed(asked)
    assert (found * expected).sum(axis=1).min() > 0.99
