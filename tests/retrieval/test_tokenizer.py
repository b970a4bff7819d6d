"""A tokenizer gives the tokens and packs of the encoder without loading weights."""

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
from parity.run.config.encoder import EncoderConfig
from parity.run.errors import BadConfig, Mismatch

TEXTS = ["a", "a short text", "a short text and more", "a" * 300, "end</s>", ""]


def load_like(encoder: Encoder) -> Tokenizer:
    return reader.load_tokenizer(encoder.base, encoder.config)


@pytest.fixture(scope="module", params=["mistral", "qwen3", "gemma2", "bert"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    family = str(request.param)
    base = models.write(tmp_path_factory.mktemp(family), family)
    return models.load(base, pooling="mean" if family == "bert" else "last")


def test_tokens_equal_the_encoder_s(encoder: Encoder) -> None:
    tokenizer = load_like(encoder)
    for limit in (16, 64, 500):
        assert tokenizer.tokenize(TEXTS, limit) == encoder.tokenize(TEXTS, limit)
    assert [tokenizer.count(text) for text in TEXTS] == [encoder.count(text) for text in TEXTS]


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(max_size=80), min_size=1, max_size=12), limit=st.integers(4, 90))
def test_tokens_of_any_text_equal_the_encoder_s(
    encoder: Encoder, texts: list[str], limit: int
) -> None:
    tokenizer = load_like(encoder)
    assert tokenizer.tokenize(texts, limit) == encoder.tokenize(texts, limit)
    assert tokenizer.tokenize(texts, limit) == [
        tokenize_alone(tokenizer, text, limit) for text in texts
    ]


def tokenize_alone(tokenizer: Tokenizer, text: str, limit: int) -> list[int]:
    """Return the token ids of one text, from the tokenizer's method with offsets."""
    if tokenizer.is_causal:
        ids = tokenizer._body(tokenizer._tokenizer.encode(text).ids)
        return [*ids[: limit - len(tokenizer._eos)], *tokenizer._eos]
    tokenizer._tokenizer.enable_truncation(limit)
    ids = tokenizer._tokenizer.encode(text).ids
    tokenizer._tokenizer.no_truncation()
    return list(ids)


def test_packs_equal_those_that_the_encoder_runs(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs_run: list[list[int]] = []
    states = encoder._states

    def recorded(pack: Pack) -> torch.Tensor:
        packs_run.append(pack.ids.tolist())
        return states(pack)

    monkeypatch.setattr(encoder, "_states", recorded)
    sequences = models.sequences()
    encoder.embed(sequences)
    packs = load_like(encoder).packs(sequences)
    assert [pack.ids.tolist() for pack in packs] == packs_run
    assert np.concatenate([pack.owner for pack in packs]).size == len(sequences)


def test_the_weights_are_not_needed(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    encoder = models.load(base)
    (tmp_path / "model.safetensors").unlink()
    assert load_like(encoder).tokenize(TEXTS, 64) == encoder.tokenize(TEXTS, 64)


def test_a_base_without_its_fast_tokenizer_is_refused(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(BadConfig, match=r"tokenizer\.json is missing"):
        reader.load_tokenizer(base, EncoderConfig())


def test_tokens_without_an_embedding_are_refused(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama", vocab_size=100)
    with pytest.raises(Mismatch, match="more tokens than the embedding table"):
        reader.load_tokenizer(base, EncoderConfig())


def test_a_causal_base_without_eos_is_refused(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(
        config.replace('"eos_token_id": 2', '"eos_token_id": null')
    )
    with pytest.raises(BadConfig, match="no eos_token_id"):
        reader.load_tokenizer(base, EncoderConfig())
