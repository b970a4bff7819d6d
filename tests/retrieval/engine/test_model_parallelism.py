"""A model split over several GPUs gives the vectors of one GPU."""

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

LAYERS = 12  # enough for two GPUs
needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    folder = tmp_path_factory.mktemp("bases") / "llama"
    return models.write(folder, "llama", num_hidden_layers=LAYERS)


def save_adapter(base: BaseModel, folder: Path, **changes: Any) -> Path:
    """Write an adapter with random weights; return its folder."""
    encoder = models.load(base, **changes)
    models.attach(encoder)
    adapter.save(encoder.model, folder, base, layers=0, template="t")
    return folder


def devices_of(encoder: Encoder) -> set[str]:
    return {str(weight.device) for weight in encoder.model.parameters()}


def test_parallelism_does_not_change_the_digest(llama: BaseModel) -> None:
    first, split = models.load(llama), models.load(llama, parallelism="model")
    assert first.digest() == split.digest()
    assert split.config.parallelism == "model"


def test_without_gpus_model_parallelism_changes_nothing(llama: BaseModel, tmp_path: Path) -> None:
    folder = save_adapter(llama, tmp_path / "adapter")
    sequences = models.sequences()
    expected = models.load(llama, folder).embed(sequences)
    actual = models.load(llama, folder, parallelism="model").embed(sequences)
    assert expected.tobytes() == actual.tobytes()


def test_a_model_too_large_for_all_gpus_is_refused(
    llama: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers on the disk would be read again for every pack."""
    layers = {f"layers.{number}": "cpu" for number in range(LAYERS - 1)}
    others_ = {"embed_tokens": "cpu", "norm": "cpu", "rotary_emb": "cpu"}
    left_out = {**layers, **others_, f"layers.{LAYERS - 1}": "disk"}
    monkeypatch.setattr(hardware, "device_map", lambda config, device: left_out)
    with pytest.raises(
        BadConfig, match=r"^base model llama does not fit in the memory of all GPUs\. Set encoder"
    ):
        models.load(llama)


@needs_two_gpus
@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:inner dimension")  # from a model this small
@pytest.mark.parametrize("quantize", ["none", "4bit"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2-sliding", "gemma2", "gemma3"])
def test_a_split_model_gives_the_vectors_of_one_gpu(
    tmp_path: Path, family: str, quantize: str
) -> None:
    shape: dict[str, Any] = {"num_hidden_layers": LAYERS}
    if family == "gemma3":
        shape["layer_types"] = ["sliding_attention", "full_attention"] * (LAYERS // 2)
    base = models.write(tmp_path / family, family, **shape)
    on_gpus: dict[str, Any] = {"device": "cuda", "quantize": quantize}
    folder = save_adapter(base, tmp_path / "adapter", **on_gpus)
    single = models.load(base, folder, **on_gpus)
    split = models.load(base, folder, **on_gpus, parallelism="model")
    assert devices_of(single) == {"cuda:0"}
    assert devices_of(split) == {"cuda:0", "cuda:1"}
    sequences = models.sequences()
    np.testing.assert_allclose(split.embed(sequences), single.embed(sequences), rtol=0, atol=1e-6)
    base_only = models.load(base, **on_gpus, parallelism="model")
    assert (
        np.abs(base_only.embed(sequences) - split.embed(sequences)).max() > 1e-3
    )  # the adapter was applied


@needs_two_gpus
@pytest.mark.gpu
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_small_encoder_can_be_split(tmp_path: Path, pooling: str) -> None:
    base = models.write(tmp_path / "bert", "bert", num_hidden_layers=LAYERS)
    single = models.load(base, device="cuda", pooling=pooling)
    split = models.load(base, device="cuda", pooling=pooling, parallelism="model")
    assert devices_of(split) == {"cuda:0", "cuda:1"}
    sequences = models.sequences()
    np.testing.assert_allclose(split.embed(sequences), single.embed(sequences), rtol=0, atol=1e-6)


@needs_two_gpus
@pytest.mark.gpu
def test_gradients_reach_an_adapter_on_every_gpu(llama: BaseModel) -> None:
    encoder = models.load(llama, device="cuda", parallelism="model")
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


def test_the_cost_of_embedding_is_recorded(llama: BaseModel) -> None:
    encoder = models.load(llama)
    assert encoder.embedded.tokens == 0
    sequences = models.sequences()
    encoder.embed(sequences)
    packs = trie.pack(sequences, encoder.config.token_budget)
    assert (encoder.embedded.tokens, encoder.embedded.packs) == (sum(map(len, packs)), len(packs))
    assert 0 < encoder.embedded.seconds < 60
