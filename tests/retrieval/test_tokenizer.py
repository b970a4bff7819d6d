"""A reader does to texts what the encoder does, and loads no weights for it."""

from pathlib import Path

import models
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.retrieval import tokenizer as reader
from parity.retrieval.encoder import Encoder
from parity.retrieval.engine.trie import Pack
from parity.retrieval.tokenizer import Tokenizer
from parity.run.config.run_file import EncoderConfig
from parity.run.errors import BadConfig, Mismatch

TEXTS = ["a", "a short text", "a short text and more", "a" * 300, "end</s>", ""]


def opened(encoder: Encoder) -> Tokenizer:
    return reader.opened(encoder.base, encoder.config)


@pytest.fixture(scope="module", params=["mistral", "qwen3", "gemma2", "bert"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    family = str(request.param)
    base = models.write(tmp_path_factory.mktemp(family), family)
    return models.load(base, pooling="mean" if family == "bert" else "last")


def test_tokens_are_the_encoders(encoder: Encoder) -> None:
    found = opened(encoder)
    for limit in (16, 64, 500):
        assert found.tokenize(TEXTS, limit) == encoder.tokenize(TEXTS, limit)
    assert [found.count(text) for text in TEXTS] == [encoder.count(text) for text in TEXTS]


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(max_size=80), min_size=1, max_size=12), limit=st.integers(4, 90))
def test_tokens_of_any_text_are_the_encoders(
    encoder: Encoder, texts: list[str], limit: int
) -> None:
    found = opened(encoder)
    assert found.tokenize(texts, limit) == encoder.tokenize(texts, limit)
    assert found.tokenize(texts, limit) == [alone(found, text, limit) for text in texts]


def alone(reader: Tokenizer, text: str, limit: int) -> list[int]:
    """Return the ids of a text read by itself, in the tokenizer's exact way with its offsets."""
    if reader.causal:
        ids = reader._body(reader._tokenizer.encode(text).ids)
        return [*ids[: limit - len(reader._eos)], *reader._eos]
    reader._tokenizer.enable_truncation(limit)
    ids = reader._tokenizer.encode(text).ids
    reader._tokenizer.no_truncation()
    return list(ids)


def test_packs_are_those_that_the_encoder_runs(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[int]] = []
    states = encoder._states

    def noted(pack: Pack) -> torch.Tensor:
        ran.append(pack.ids.tolist())
        return states(pack)

    monkeypatch.setattr(encoder, "_states", noted)
    sequences = models.sequences()
    encoder.embed(sequences)
    packs = opened(encoder).packs(sequences)
    assert [pack.ids.tolist() for pack in packs] == ran
    assert np.concatenate([pack.owner for pack in packs]).size == len(sequences)


def test_no_weights_are_needed(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    there = models.load(base)
    (tmp_path / "model.safetensors").unlink()
    assert opened(there).tokenize(TEXTS, 64) == there.tokenize(TEXTS, 64)


def test_a_base_without_its_fast_tokenizer_is_refused(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(BadConfig, match=r"tokenizer\.json is missing"):
        reader.opened(base, EncoderConfig())


def test_tokens_without_an_embedding_are_refused(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama", vocab_size=100)
    with pytest.raises(Mismatch, match="no embedding"):
        reader.opened(base, EncoderConfig())


def test_a_causal_base_without_eos_is_refused(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(
        config.replace('"eos_token_id": 2', '"eos_token_id": null')
    )
    with pytest.raises(BadConfig, match="no eos_token_id"):
        reader.opened(base, EncoderConfig())
