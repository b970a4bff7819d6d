"""Products in 8-bit floats: which weights are rounded, and the rounding error."""

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
from parity.retrieval.models.fp8 import RoundedLinear, round_rows
from parity.run.errors import BadConfig

CPU = torch.device("cpu")
HALF_STEP = 2**-4  # e4m3 has three mantissa bits
SMALLEST = 2**-9  # its smallest value; the largest is 448
SHAPE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48}

values = st.floats(-(2.0**99), 2.0**99, width=32)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("llama"), "llama")


@settings(deadline=None)
@given(rows=st.lists(st.lists(values, min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_row_is_rounded_to_a_sixteenth_of_each_value(rows: list[list[float]]) -> None:
    tensor = torch.tensor(rows)
    result, scale = round_rows(tensor)
    restored = result.float() * scale
    assert torch.isfinite(restored).all()
    bound = (tensor.abs() * HALF_STEP * 1.001).maximum(scale * SMALLEST)
    assert ((restored - tensor).abs() <= bound).all()
    largest = tensor.abs().amax(dim=1)
    assert (result.float().abs().amax(dim=1)[largest > 1e-9] == 448).all()


@pytest.mark.parametrize("bias", [False, True])
def test_a_rounded_layer_multiplies_the_rounded_values(bias: bool) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(32, 48, bias=bias)
    states = torch.randn(2, 7, 32)
    weight, weight_scale = round_rows(plain.weight.detach())
    rows, scale = round_rows(states.view(-1, 32))
    expected = (rows.double() * scale) @ (weight.double() * weight_scale).t()
    expected = expected.float() + (plain.bias if bias else 0)
    result = RoundedLinear(plain)(states)
    assert result.shape == (2, 7, 48)
    torch.testing.assert_close(result.view(-1, 48), expected, rtol=1e-5, atol=1e-5)
    assert (result - plain(states)).abs().max() > 1e-3


def test_only_the_linear_layers_are_rounded(llama: BaseModel) -> None:
    full, model = models.load(llama).model, models.load(llama, quantize="fp8").model
    linear = {
        name: module for name, module in full.named_modules() if type(module) is torch.nn.Linear
    }
    rounded = {
        name: module for name, module in model.named_modules() if isinstance(module, RoundedLinear)
    }
    assert sorted(rounded) == sorted(linear)
    assert len(rounded) == 2 * 7
    assert not [module for module in model.modules() if type(module) is torch.nn.Linear]
    assert torch.equal(model.embed_tokens.weight, full.embed_tokens.weight)


@pytest.mark.parametrize("family", ["mistral", "qwen2", "gemma2", "bert"])
def test_rounded_embeddings_are_close_to_exact_ones(family: str, tmp_path: Path) -> None:
    base, sequences = models.write(tmp_path, family), models.sequences()
    pooling = "mean" if family == "bert" else "last"
    result = models.load(base, quantize="fp8", pooling=pooling).embed(sequences)
    exact = models.load(base, pooling=pooling).embed(sequences)
    cosines = (result * exact).sum(axis=1)
    assert cosines.mean() > 0.98
    assert cosines.max() < 1 - 1e-6


def test_an_adapter_is_applied_and_not_rounded(llama: BaseModel, tmp_path: Path) -> None:
    sequences = models.sequences()
    trained = models.load(llama)
    models.attach(trained)
    adapter.save(trained.model, tmp_path / "adapter", llama, layers=0, template="t")
    encoder = models.load(llama, tmp_path / "adapter", quantize="fp8")
    names = [
        name for name, module in encoder.model.named_modules() if type(module) is torch.nn.Linear
    ]
    assert len(names) == 2 * 2 * 7
    assert all("lora_" in name for name in names)
    result, expected = encoder.embed(sequences), trained.embed(sequences)
    base_vectors = models.load(llama, quantize="fp8").embed(sequences)
    assert (result * expected).sum(axis=1).mean() > 0.98
    assert np.abs(result - base_vectors).max(axis=1).min() > 1e-2


def test_matrices_with_unsupported_sides_are_not_rounded(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama", intermediate_size=40)
    model = models.load(base, quantize="fp8").model
    names = {
        name.split(".")[-1]
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear
    }
    assert names == {"gate_proj", "up_proj", "down_proj"}


def test_a_model_without_supported_matrices_is_refused(tmp_path: Path) -> None:
    base = models.write(
        tmp_path,
        "llama",
        hidden_size=24,
        intermediate_size=40,
        num_attention_heads=3,
        num_key_value_heads=1,
    )
    with pytest.raises(BadConfig, match=r"llama has no linear layer with sides .* Use 'none'"):
        models.load(base, quantize="fp8")


def test_a_gpu_without_fp8_units_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    fp8.check_device(CPU)
    with pytest.raises(BadConfig, match="NVIDIA A100 has no FP8 units"):
        fp8.check_device(torch.device("cuda", 0))


@pytest.mark.gpu
@pytest.mark.parametrize("bias", [False, True])
def test_fp8_units_match_the_emulation_on_a_cpu(bias: bool) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(4096, 1024, bias=bias).bfloat16()
    states = torch.randn(1, 300, 4096).bfloat16()
    expected = RoundedLinear(plain)(states).float()
    result = RoundedLinear(plain.cuda())(states.cuda()).float().cpu()
    assert (result - expected).norm() <= 0.01 * expected.norm()  # bf16 and sums in fewer bits


@pytest.mark.gpu
def test_compiled_layers_match_a_cpu(tmp_path: Path) -> None:
    base = models.write(tmp_path, "mistral", head_dim=16)
    sequences = [
        [*row, *models.sequences(seed=8)[0]] for row in models.sequences(seed=7, count=120)
    ]
    encoder = models.load(base, device="cuda", quantize="fp8", token_budget=4096)
    assert encoder.forward.kind == "flex"
    result, expected = encoder.embed(sequences), models.load(base, quantize="fp8").embed(sequences)
    assert (result * expected).sum(axis=1).min() > 0.99
