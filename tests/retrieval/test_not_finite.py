"""NaN and infinity stop every step that would compute with them, with the row and what to do."""

import json
from pathlib import Path

import models
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from parity.competition.query import Position
from parity.pipeline import reload_check
from parity.retrieval.embedding_cache import EmbeddingCache
from parity.retrieval.encoder import Encoder
from parity.retrieval.models import adapter, base_model
from parity.retrieval.models.base_model import BaseModel
from parity.retrieval.retrieve import index
from parity.run import digest
from parity.run.config.encoder import EncoderConfig
from parity.run.config.prompt import PromptConfig
from parity.run.errors import Mismatch, NotFinite


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return models.write(tmp_path / "llama", "llama")


def damaged(base: BaseModel, value: float, name: str = "orm.weight") -> BaseModel:
    """Set one weight of a base model, and describe it again."""
    path = base.folder / "model.safetensors"
    weights = load_file(path)
    key = next(key for key in weights if key.endswith(name))
    weights[key].view(-1)[0] = value
    save_file(weights, path, metadata={"format": "pt"})
    return base_model.describe(base.name, base.folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("family", "pooling"), [("llama", "last"), ("bert", "mean")])
def test_weights_that_are_not_finite_are_named_and_not_the_pooling(
    tmp_path: Path, family: str, pooling: str, value: float
) -> None:
    base = damaged(models.write(tmp_path / family, family), value)
    with pytest.raises(NotFinite, match=r"^the base model computes NaN or infinity") as error:
        models.load(base, pooling=pooling)
    assert "pooling" not in str(error.value)


def adapter_of(base: BaseModel, folder: Path, value: float) -> Path:
    """Save an adapter whose first LoRA weight has a value."""
    encoder = models.load(base)
    models.attach(encoder)
    adapter.save(encoder.model, folder, base, layers=0, template="")
    path = adapter.weights_path(folder)
    weights = load_file(path)
    weights[min(weights)].view(-1)[0] = value
    save_file(weights, path, metadata={"format": "pt"})
    record = json.loads((folder / adapter.RECORD).read_text())
    (folder / adapter.RECORD).write_text(json.dumps({**record, "weights": digest.of_file(path)}))
    return folder


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_that_is_not_finite_is_refused_at_its_first_text(
    base: BaseModel, tmp_path: Path, value: float
) -> None:
    encoder = models.load(base, adapter_of(base, tmp_path / "adapter", value))
    expected = r"^encode: the embedding of text 1 is not finite, 31 of 31 in all\. The weights of"
    with pytest.raises(NotFinite, match=expected):
        encoder.embed(models.sequences())


def test_the_row_is_named_and_nothing_is_cached(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EncoderConfig(precision="fp32", device="cpu", token_budget=64)
    encoder = Encoder(base, settings, cache=EmbeddingCache(tmp_path / "cache"))
    original = encoder._vectors

    def overflowing(packs: object, done: object) -> torch.Tensor:
        vectors = original(packs, done)  # type: ignore[arg-type]
        vectors[2, 1] = float("nan")
        return vectors

    monkeypatch.setattr(encoder, "_vectors", overflowing)
    corpus = {Position(key): text for key, text in enumerate(("a", "bc", "def", "g"))}
    with pytest.raises(NotFinite, match="encode the corpus: the embedding of passage 2 is not"):
        index(encoder, PromptConfig(), corpus)
    assert not list((tmp_path / "cache").rglob("*.npy"))
    monkeypatch.setattr(encoder, "dtype", torch.float16)
    with pytest.raises(NotFinite, match=r"overflows in float16\. Set encoder\.precision to 'fp32'"):
        index(encoder, PromptConfig(), corpus)


@pytest.mark.parametrize(("difference", "change"), [(np.nan, 1.0), (0.0, np.nan), (np.nan, np.nan)])
def test_nan_is_never_within_the_tolerance_of_the_round_trip(
    difference: float, change: float
) -> None:
    with pytest.raises(Mismatch):
        reload_check._compare(1, difference, change, 1e-5)
