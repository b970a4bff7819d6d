"""Encoders: refused settings, tokens and digests."""

import json
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors

from parity.retrieval.encoder import Encoder
from parity.retrieval.models import adapter, base_model
from parity.retrieval.models.base_model import BaseModel
from parity.run.config.encoder import EncoderConfig
from parity.run.errors import BadConfig, Mismatch

TEXTS = ["", "a", "Adds 1/2 + 1/3", "Ünïcode − 3² ≤ x", "two\nlines", "</s>", "<s>a</s>", "x" * 90]

few_examples = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("bases") / "llama", "llama")


@pytest.fixture(scope="module")
def encoder(llama: BaseModel) -> Encoder:
    return models.load(llama)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    base = models.write(tmp_path_factory.mktemp("bases") / "bert", "bert")
    return models.load(base, pooling="mean")


def change_config(folder: Path, **values: Any) -> None:
    """Update values of a base model's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def replace_tokenizer(base: BaseModel, tokenizer: Tokenizer) -> BaseModel:
    """Replace the tokenizer of a base model and return the new description."""
    tokenizer.save(str(base.folder / "tokenizer.json"))
    return base_model.describe(base.name, base.folder)


@pytest.mark.parametrize("family", models.CAUSAL)
def test_a_causal_model_needs_last_token_pooling(tmp_path: Path, family: str) -> None:
    base = models.write(tmp_path, family)
    for pooling in ("mean", "cls"):
        with pytest.raises(
            BadConfig, match=rf"encoder\.pooling = '{pooling}': .* is causal, use last"
        ):
            models.load(base, pooling=pooling)


@pytest.mark.parametrize("family", models.BIDIRECTIONAL)
def test_a_bidirectional_model_refuses_last_token_pooling(tmp_path: Path, family: str) -> None:
    base = models.write(tmp_path, family)
    with pytest.raises(BadConfig, match=r"'last': .* is not causal, use mean or cls"):
        models.load(base)


def test_too_many_layers_are_refused(llama: BaseModel) -> None:
    with pytest.raises(BadConfig, match=r"encoder\.num_layers = 3: llama has 2"):
        models.load(llama, num_layers=3)


@pytest.mark.parametrize("family", ["llama", "qwen2-sliding", "gemma2"])
def test_num_layers_keeps_the_first_n(tmp_path: Path, family: str) -> None:
    base, sequences = models.write(tmp_path, family), models.sequences()
    first_layers = models.load(base, num_layers=1)
    reference = models.load_plain(base)
    reference.layers = reference.layers[:1]
    reference.config.num_hidden_layers = 1
    with torch.no_grad():
        expected = models.embed_separately(reference, sequences)
    np.testing.assert_allclose(first_layers.embed(sequences), expected, atol=1e-5)
    assert len(first_layers.model.layers) == 1
    assert np.abs(first_layers.embed(sequences) - models.load(base).embed(sequences)).max() > 1e-2
    all_layers = models.load(base, num_layers=2)
    np.testing.assert_array_equal(all_layers.embed(sequences), models.load(base).embed(sequences))


def test_a_weight_missing_from_the_files_is_refused_not_drawn(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    del weights["layers.1.self_attn.k_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(Mismatch, match=r"layers\.1\.self_attn\.k_proj\.weight is not in its files"):
        models.load(base)


def test_a_weight_of_another_shape_is_refused(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    change_config(tmp_path, intermediate_size=64)
    with pytest.raises(Mismatch, match=r"layers\.0\.mlp\.down_proj\.weight.* would be random"):
        models.load(base)


def test_a_missing_pooler_is_ignored(tmp_path: Path) -> None:
    base, sequences = models.write(tmp_path, "bert"), models.sequences()
    expected = models.load(base, pooling="mean").embed(sequences)
    path = tmp_path / "model.safetensors"
    weights = {name: value for name, value in load_file(path).items() if "pooler" not in name}
    save_file(weights, path, metadata={"format": "pt"})
    np.testing.assert_array_equal(models.load(base, pooling="mean").embed(sequences), expected)


def test_an_added_token_without_an_embedding_is_harmless_until_a_text_has_it(
    tmp_path: Path,
) -> None:
    base = models.write(tmp_path, "llama")
    expected = models.load(base).tokenize(["a", "b"], 64)
    tokenizer = models.tokenizer_of("llama")
    tokenizer.add_special_tokens(["[PAD]"])
    encoder = models.load(replace_tokenizer(base, tokenizer))
    assert encoder.tokenize(["a", "b"], 64) == expected
    message = r"has no embedding for the token '\[PAD\]' of text 2\. Use the tokenizer"
    with pytest.raises(Mismatch, match=message) as error:
        encoder.tokenize(["a", "secret [PAD]"], 64)
    assert "secret" not in str(error.value)


def test_a_folder_without_tokenizer_json_is_refused(tmp_path: Path) -> None:
    base = models.write(tmp_path / "half", "llama")
    (base.folder / "tokenizer.json").unlink()
    with pytest.raises(BadConfig, match=r"tokenizer\.json is missing in half"):
        models.load(base)


def test_a_model_without_an_eos_is_refused(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama", eos_token_id=None)
    with pytest.raises(BadConfig, match=r"config\.json has no eos_token_id"):
        models.load(base)


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, llama: BaseModel) -> None:
    trained = models.load(llama)
    models.attach(trained)
    adapter.save(trained.model, tmp_path / "adapter", llama, layers=0, template="t")
    other = models.write(tmp_path / "other", "llama", seed=1)
    with pytest.raises(Mismatch, match=r"trained on another base than llama \(digests differ\)"):
        models.load(other, tmp_path / "adapter")


def test_cuda_is_refused_without_a_gpu(llama: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadConfig, match=r"encoder\.device = 'cuda': torch finds no CUDA"):
        models.load(llama, device="cuda")
    assert models.load(llama, device="auto").device == torch.device("cpu")


def test_bf16_is_refused_on_a_gpu_that_only_emulates_it(
    llama: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))  # a T4
    with pytest.raises(BadConfig, match=r"encoder\.precision = 'bf16': this GPU has no bf16 units"):
        models.load(llama, device="cuda", precision="bf16")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_vectors_are_float32_of_unit_norm_in_any_precision(
    llama: BaseModel, precision: str, dtype: torch.dtype
) -> None:
    result = models.load(llama, precision=precision)
    assert result.dtype == dtype
    assert {weight.dtype for weight in result.model.parameters()} == {dtype}
    vectors = result.embed(models.sequences())
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_every_text_ends_with_eos_once(encoder: Encoder) -> None:
    for tokens in encoder.tokenize(TEXTS, 64):
        assert tokens[0] == models.BOS
        assert tokens[-1] == models.EOS
        assert tokens[-2] != models.EOS
    assert encoder.tokenize(["a"], 64) == [[models.BOS, 3 + 64, models.EOS]]  # bytes start at "!"


def test_a_tokenizer_that_appends_eos_gives_the_same_tokens(
    tmp_path: Path, encoder: Encoder
) -> None:
    base = models.write(tmp_path, "llama")
    closing = models.load(replace_tokenizer(base, models.tokenizer_of("bert")))
    for limit in (3, 8, 64):
        assert closing.tokenize(TEXTS, limit) == encoder.tokenize(TEXTS, limit)
    assert [closing.count(text) for text in TEXTS] == [encoder.count(text) for text in TEXTS]


def test_a_closing_token_of_the_tokenizer_is_kept(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    tokenizer = models.tokenizer_of("llama")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <pad>", special_tokens=[("<pad>", 0)]
    )
    result = models.load(replace_tokenizer(base, tokenizer)).tokenize(["a", "ab" * 40], 8)
    assert result[0] == [67, 0]
    assert result[1] == [67, 68, 67, 68, 67, 68, 67, 0]


def test_the_first_of_several_eos_tokens_is_used(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    change_config(tmp_path, eos_token_id=[7, 2])
    assert models.load(base).tokenize(["a"], 64) == [[models.BOS, 67, 7]]


@few_examples
@given(st.lists(st.text(max_size=40), max_size=6), st.integers(3, 30))
def test_truncation_removes_the_tail_but_not_eos(
    encoder: Encoder, texts: list[str], limit: int
) -> None:
    complete = encoder.tokenize(texts, 10_000)
    for full, tokens in zip(complete, encoder.tokenize(texts, limit), strict=True):
        assert len(tokens) == min(len(full), limit)
        assert tokens[:-1] == full[: len(tokens) - 1]
        assert tokens[-1] == models.EOS


@few_examples
@given(st.lists(st.text(max_size=40), max_size=6), st.integers(3, 30))
def test_a_text_is_tokenized_the_same_alone_and_in_a_batch(
    encoder: Encoder, bert: Encoder, texts: list[str], limit: int
) -> None:
    for tokenizer in (encoder, bert):
        batch = tokenizer.tokenize(texts, limit)
        assert batch == [tokenizer.tokenize([text], limit)[0] for text in texts]
        complete = tokenizer.tokenize(texts, 10_000)
        assert [tokenizer.count(text) for text in texts] == [len(tokens) for tokens in complete]


def test_a_bidirectional_model_keeps_its_closing_token(bert: Encoder) -> None:
    assert bert.tokenize(["a", "ab" * 40], 8) == [
        [models.BOS, 67, models.EOS],
        [models.BOS, 67, 68, 67, 68, 67, 68, models.EOS],
    ]
    assert bert.count("ab" * 40) == 82  # counts are not truncated


def test_padding_and_truncation_in_tokenizer_json_are_disabled(
    tmp_path: Path, encoder: Encoder
) -> None:
    base = models.write(tmp_path, "llama")
    tokenizer = models.tokenizer_of("llama")
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=12)
    result = models.load(replace_tokenizer(base, tokenizer))
    assert result.tokenize(TEXTS, 64) == encoder.tokenize(TEXTS, 64)


def test_vectors_keep_the_order_and_equal_texts_have_equal_bytes(
    encoder: Encoder,
) -> None:
    sequences = models.sequences()
    vectors = encoder.embed(sequences)
    reversed_vectors = encoder.embed(sequences[::-1])
    np.testing.assert_array_equal(reversed_vectors[::-1], vectors)
    duplicates = [index for index, row in enumerate(sequences) if sequences.count(row) > 1]
    assert len(duplicates) > 1
    for index in duplicates:
        first = sequences.index(sequences[index])
        assert vectors[index].tobytes() == vectors[first].tobytes()


def test_an_empty_list_gives_no_vectors(encoder: Encoder, bert: Encoder) -> None:
    for model in (encoder, bert):
        assert model.embed([]).shape == (0, 32)
        assert model.embed([]).dtype == np.float32


def test_embed_has_no_gradients(encoder: Encoder) -> None:
    encoder.model.requires_grad_(True)
    try:
        assert models.encode(encoder, [[1, 5, 2]]).requires_grad
        encoder.embed([[1, 5, 2]])
        assert all(weight.grad is None for weight in encoder.model.parameters())
    finally:
        encoder.model.requires_grad_(False)


def test_the_digest_covers_everything_that_affects_embeddings(
    tmp_path: Path, llama: BaseModel
) -> None:
    trained = models.load(llama)
    models.attach(trained)
    adapter.save(trained.model, tmp_path / "adapter", llama, layers=0, template="t")
    other = models.write(tmp_path / "other", "llama", seed=1)
    result = [
        models.load(llama),
        models.load(other),
        models.load(llama, tmp_path / "adapter"),
        models.load(llama, precision="bf16"),
        models.load(llama, num_layers=1),
        models.load(llama, token_budget=128),
        models.load(llama, quantize="4bit"),
    ]
    assert len({item.digest() for item in result}) == len(result)


def test_the_digest_does_not_depend_on_the_folder_of_the_base_model(
    tmp_path: Path, llama: BaseModel
) -> None:
    copy = models.write(tmp_path / "copy", "llama")
    config = EncoderConfig(base="llama", precision="fp32", device="cpu")
    other_config = EncoderConfig(base=str(tmp_path / "copy"), precision="fp32", device="auto")
    assert Encoder(copy, other_config).digest() == Encoder(llama, config).digest()


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_the_process_s_matmul_precision_does_not_change_a_byte(
    llama: BaseModel, precision: str
) -> None:
    expected = models.load(llama).embed(models.sequences())
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = True
        assert models.load(llama).embed(models.sequences()).tobytes() == expected.tobytes()
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)
