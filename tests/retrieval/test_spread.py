"""A model spread over several GPUs gives the vectors of one; without them nothing changes."""

from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch

from parity.retrieval.encoder import Encoder
from parity.retrieval.engine import device as hardware
from parity.retrieval.engine import trie
from parity.retrieval.models import adapter
from parity.retrieval.models.base_model import BaseModel
from parity.run.errors import BadConfig

LAYERS = 12  # enough for two GPUs to get some each
several = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    folder = tmp_path_factory.mktemp("bases") / "llama"
    return models.write(folder, "llama", num_hidden_layers=LAYERS)


def trained(base: BaseModel, folder: Path, **changes: Any) -> Path:
    """Write an adapter as a training would leave it."""
    encoder = models.load(base, **changes)
    models.attach(encoder)
    adapter.save(encoder.model, folder, base, layers=0, template="t")
    return folder


def places(encoder: Encoder) -> set[str]:
    return {str(weight.device) for weight in encoder.model.parameters()}


def test_how_a_model_is_spread_is_no_part_of_what_it_is(llama: BaseModel) -> None:
    one, other = models.load(llama), models.load(llama, spread="model")
    assert one.digest() == other.digest()
    assert other.config.parallelism == "model"


def test_without_gpus_a_spread_model_is_the_plain_one(llama: BaseModel, tmp_path: Path) -> None:
    folder = trained(llama, tmp_path / "adapter")
    asked = models.sequences()
    one = models.load(llama, folder).embed(asked)
    other = models.load(llama, folder, spread="model").embed(asked)
    assert one.tobytes() == other.tobytes()


def test_a_model_that_all_gpus_together_cannot_hold_is_refused(
    llama: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers that are left on the disk would be read again for every pack."""
    places = {f"layers.{number}": "cpu" for number in range(LAYERS - 1)}
    rest = {"embed_tokens": "cpu", "norm": "cpu", "rotary_emb": "cpu"}
    left_out = {**places, **rest, f"layers.{LAYERS - 1}": "disk"}
    monkeypatch.setattr(hardware, "device_map", lambda config, device: left_out)
    with pytest.raises(BadConfig, match=r"^base llama does not fit all GPUs together: encoder\."):
        models.load(llama)


@several
@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:inner dimension")  # of so small a model
@pytest.mark.parametrize("quantize", ["none", "4bit"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2-sliding", "gemma2", "gemma3"])
def test_a_spread_model_gives_the_vectors_of_one_gpu(
    tmp_path: Path, family: str, quantize: str
) -> None:
    shape: dict[str, Any] = {"num_hidden_layers": LAYERS}
    if family == "gemma3":
        shape["layer_types"] = ["sliding_attention", "full_attention"] * (LAYERS // 2)
    base = models.write(tmp_path / family, family, **shape)
    on_gpus: dict[str, Any] = {"device": "cuda", "quantize": quantize}
    folder = trained(base, tmp_path / "adapter", **on_gpus)
    one = models.load(base, folder, **on_gpus)
    other = models.load(base, folder, **on_gpus, spread="model")
    assert places(one) == {"cuda:0"}
    assert places(other) == {"cuda:0", "cuda:1"}
    asked = models.sequences()
    np.testing.assert_allclose(other.embed(asked), one.embed(asked), rtol=0, atol=1e-6)
    bare = models.load(base, **on_gpus, spread="model")
    assert np.abs(bare.embed(asked) - other.embed(asked)).max() > 1e-3  # the adapter was applied


@several
@pytest.mark.gpu
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_small_encoder_can_be_spread_too(tmp_path: Path, pooling: str) -> None:
    base = models.write(tmp_path / "bert", "bert", num_hidden_layers=LAYERS)
    one = models.load(base, device="cuda", pooling=pooling)
    other = models.load(base, device="cuda", pooling=pooling, spread="model")
    assert places(other) == {"cuda:0", "cuda:1"}
    asked = models.sequences()
    np.testing.assert_allclose(other.embed(asked), one.embed(asked), rtol=0, atol=1e-6)


@several
@pytest.mark.gpu
def test_gradients_reach_an_adapter_on_every_gpu(llama: BaseModel) -> None:
    encoder = models.load(llama, device="cuda", spread="model")
    models.attach(encoder)
    vectors = models.encode(encoder, models.sequences())
    assert str(vectors.device) == "cuda:0"
    vectors.square().sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    reached = {
        str(weight.device)
        for weight in encoder.model.parameters()
        if weight.grad is not None and weight.grad.abs().max() > 0
    }
    assert reached == {"cuda:0", "cuda:1"}


def test_what_embedding_took_is_told(llama: BaseModel) -> None:
    encoder = models.load(llama)
    assert encoder.embedded.tokens == 0
    asked = models.sequences()
    encoder.embed(asked)
    packs = trie.pack(asked, encoder.config.token_budget)
    assert (encoder.embedded.tokens, encoder.embedded.packs) == (sum(map(len, packs)), len(packs))
    assert 0 < encoder.embedded.seconds < 60
