"""Packed forwards equal separate forwards in embeddings and gradients, for every family."""

from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel

from parity.retrieval.encoder import Encoder
from parity.retrieval.engine import attention, flex_attention, trie
from parity.retrieval.engine import block_attention as blocks
from parity.retrieval.engine.attention import Backend
from parity.retrieval.engine.block_attention import masked_attention
from parity.retrieval.models import adapter
from parity.retrieval.models.base_model import BaseModel
from parity.run.errors import Mismatch

CLOSE = 1e-5
CPU = torch.device("cpu")

few_examples = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
token_lists = st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=14), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseModel]:
    folder = tmp_path_factory.mktemp("bases")
    return {family: models.write(folder / family, family) for family in models.CAUSAL}


def max_difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).detach().abs().max())


def embed_packed(
    model: Any, sequences: list[list[int]], budget: int, kind: Backend
) -> torch.Tensor:
    """Return embeddings from tries of any budget, without an encoder."""
    rows: dict[int, torch.Tensor] = {}
    for pack in trie.pack(sequences, budget):
        hidden = attention.forward(model, pack, CPU, kind)
        assert hidden.shape == (len(pack), 32)
        for last, owner in zip(pack.last.tolist(), pack.owner.tolist(), strict=True):
            rows[owner] = torch.nn.functional.normalize(hidden[last], dim=-1)
    return torch.stack([rows[index] for index in range(len(sequences))])


def gradients(model: Any, vectors: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the gradients of a loss that weights every component of every vector differently."""
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(5))
    (vectors * weights).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    result = {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    model.zero_grad(set_to_none=True)
    return result


def check_gradients(model: Any, first: torch.Tensor, second: torch.Tensor) -> int:
    """Check that all gradients are equal, relative to their largest value; return their number."""
    actual, expected = gradients(model, first), gradients(model, second)
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert max_difference(actual[name], gradient) <= CLOSE * float(gradient.abs().max()), name
    return len(actual)


@pytest.mark.parametrize("family", models.CAUSAL)
def test_packed_embeddings_equal_separate_forwards(
    bases: dict[str, BaseModel], family: str
) -> None:
    sequences = models.sequences()
    vectors = torch.from_numpy(models.load(bases[family]).embed(sequences))
    with torch.no_grad():
        expected = models.embed_separately(models.load_plain(bases[family]), sequences)
    assert max_difference(vectors, expected) <= CLOSE


@pytest.mark.parametrize("kind", ["dense", "blocks"])
@pytest.mark.parametrize("family", ["mistral", "gemma2"])
@few_examples
@given(sequences=token_lists, budget=st.integers(1, 40))
def test_any_sequences_and_budget_equal_separate_forwards(
    bases: dict[str, BaseModel], family: str, kind: Backend, sequences: list[list[int]], budget: int
) -> None:
    model, plain = models_of(bases[family])
    with torch.no_grad():
        assert (
            max_difference(
                embed_packed(model, sequences, budget, kind),
                models.embed_separately(plain, sequences),
            )
            <= CLOSE
        )


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("family", models.CAUSAL)
def test_every_layout_equals_the_dense_layout(bases: dict[str, BaseModel], family: str) -> None:
    # Long enough for several blocks, with paths that cross blocks.
    sequences = [
        [*row, *models.sequences(seed=8)[0]] for row in models.sequences(seed=7, count=120)
    ]
    model, plain = models_of(bases[family])
    with torch.no_grad():
        dense, blocks = (embed_packed(model, sequences, 900, kind) for kind in ("dense", "blocks"))
        assert max_difference(dense, models.embed_separately(plain, sequences)) <= CLOSE
        assert max_difference(blocks, dense) <= CLOSE
        assert max_difference(embed_flex(model, sequences, 900), dense) <= CLOSE


def embed_flex(model: Any, sequences: list[list[int]], budget: int) -> torch.Tensor:
    """Return embeddings as `embed_packed` does, with FlexAttention, uncompiled on a CPU."""
    window = getattr(model.config, "sliding_window", None) or 0
    rows: dict[int, torch.Tensor] = {}
    for pack in trie.pack(sequences, budget):
        padded = flex_attention.pad_pack(pack, flex_attention.BLOCK)
        assert len(padded) % flex_attention.BLOCK == 0
        ids, depth, end = (torch.as_tensor(part) for part in (padded.ids, padded.depth, padded.end))
        layout = flex_attention.FlexLayout(end.int(), depth.int(), (0, window), window)
        hidden = model(
            input_ids=ids[None].long(),
            position_ids=depth[None].long(),
            use_cache=False,
            trie=layout,
        ).last_hidden_state[0]
        for last, owner in zip(pack.last.tolist(), pack.owner.tolist(), strict=True):
            rows[owner] = torch.nn.functional.normalize(hidden[last], dim=-1)
    return torch.stack([rows[index] for index in range(len(sequences))])


@pytest.mark.parametrize("window", [0, 3, 40])
def test_the_block_mask_matches_the_pairwise_mask(window: int) -> None:
    sequences = [
        [*row, *models.sequences(seed=8)[0]] for row in models.sequences(seed=7, count=120)
    ]
    (pack,) = trie.pack(sequences, 10**6)
    padded = flex_attention.pad_pack(pack, flex_attention.BLOCK)
    end, depth = torch.as_tensor(padded.end).int(), torch.as_tensor(padded.depth).int()
    mask = flex_attention.build_block_mask(end, depth, window)
    pairs = torch.as_tensor(trie.attention_mask(padded))
    if window:
        pairs &= depth[:, None] - depth[None, :] < window
    by_block = pairs.unfold(0, flex_attention.BLOCK, flex_attention.BLOCK).unfold(
        1, flex_attention.BLOCK, flex_attention.BLOCK
    )
    is_seen, is_full = by_block.any(-1).any(-1), by_block.all(-1).all(-1)
    assert is_seen.sum() > len(is_seen)  # not only the diagonal
    listed = mask.to_dense()[0, 0].bool()
    assert not (is_seen & ~listed).any()  # no visible block is skipped
    taken_full = torch.zeros_like(is_seen)
    assert mask.full_kv_num_blocks is not None
    assert mask.full_kv_indices is not None
    for row, count in enumerate(mask.full_kv_num_blocks[0, 0].tolist()):
        taken_full[row, mask.full_kv_indices[0, 0, row, :count].long()] = True
    assert not (taken_full & ~is_full).any()  # no hidden pair is computed
    if not window:
        torch.testing.assert_close(listed, is_seen)
        torch.testing.assert_close(taken_full, is_full & ~torch.eye(len(is_full), dtype=torch.bool))


@pytest.mark.parametrize("kind", ["dense", "blocks"])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])
def test_gradients_of_every_layout_equal_separate_forwards(
    bases: dict[str, BaseModel], family: str, kind: Backend
) -> None:
    sequences = [[*row, *models.sequences(seed=8)[0]] for row in models.sequences(seed=7, count=40)]
    encoder = models.load(bases[family])
    encoder.model.requires_grad_(True)
    plain = models.load_plain(bases[family]).requires_grad_(True)
    actual = gradients(encoder.model, embed_packed(encoder.model, sequences, 10**6, kind))
    expected_all = gradients(plain, models.embed_separately(plain, sequences))
    for name, expected in expected_all.items():
        assert max_difference(actual[name], expected) <= CLOSE * float(expected.abs().max()), name


def test_a_padded_batch_is_refused_by_a_model_with_packed_attention(
    bases: dict[str, BaseModel],
) -> None:
    model, _ = models_of(bases["llama"])
    with pytest.raises(Mismatch, match="padded batch"):
        model(
            input_ids=torch.tensor([[3, 4], [5, 0]]), attention_mask=torch.tensor([[1, 1], [1, 0]])
        )


@pytest.mark.parametrize("kind", ["bloom", "mpt"])
def test_a_model_without_replaceable_attention_runs_unpadded_with_a_message(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Their scores have position biases, and they ignore `attn_implementation`.
    base, sequences = models.write_unsupported(tmp_path, kind), models.sequences(seed=2)
    encoder = models.load(base)
    assert "cannot be replaced" in "".join(capsys.readouterr())
    assert not encoder.shares_prefixes
    with torch.no_grad():
        expected = models.embed_separately(models.load_plain(base), sequences)
    assert max_difference(torch.from_numpy(encoder.embed(sequences)), expected) <= CLOSE


_MODELS: dict[str, tuple[Any, Any]] = {}


def models_of(base: BaseModel) -> tuple[Any, Any]:
    """Return the model of an encoder and the model loaded by transformers."""
    if base.name not in _MODELS:
        _MODELS[base.name] = models.load(base).model, models.load_plain(base)
    return _MODELS[base.name]


@pytest.mark.parametrize("family", models.CAUSAL)
def test_budgets_that_split_prefixes_give_the_same_embeddings(
    bases: dict[str, BaseModel], family: str
) -> None:
    sequences = models.sequences(seed=3)
    narrow, wide = models.load(bases[family]), models.load(bases[family], token_budget=4096)
    several, single = trie.pack(sequences, 64), trie.pack(sequences, 4096)
    assert sum(map(len, several)) > sum(map(len, single))  # prefixes were repeated
    assert len(single) == 1
    np.testing.assert_allclose(narrow.embed(sequences), wide.embed(sequences), atol=CLOSE, rtol=0)


@pytest.mark.parametrize("family", models.SLIDING)
def test_the_sliding_window_changes_the_embeddings(
    bases: dict[str, BaseModel], family: str, tmp_path: Path
) -> None:
    sequences = models.sequences()
    assert models.LONGEST > 2 * models.WINDOW
    wide = models.write(tmp_path, family, sliding_window=4096)
    vectors, full_attention = (
        models.load(bases[family]).embed(sequences),
        models.load(wide).embed(sequences),
    )
    far = np.array([len(row) > 2 * models.WINDOW for row in sequences])
    near = np.array([len(row) <= models.WINDOW for row in sequences])
    assert near.any()
    assert np.abs(vectors - full_attention)[far].max(axis=1).min() > 1e-3
    np.testing.assert_allclose(vectors[near], full_attention[near], atol=CLOSE, rtol=0)


def test_mistral_without_a_sliding_window_equals_separate_forwards(tmp_path: Path) -> None:
    base, sequences = models.write(tmp_path, "mistral", sliding_window=None), models.sequences()
    with torch.no_grad():
        expected = models.embed_separately(models.load_plain(base), sequences)
    assert max_difference(torch.from_numpy(models.load(base).embed(sequences)), expected) <= CLOSE


@pytest.mark.parametrize("family", models.CAUSAL)
def test_gradients_of_all_weights_equal_separate_forwards(
    bases: dict[str, BaseModel], family: str
) -> None:
    encoder, sequences = models.load(bases[family]), models.sequences(seed=1)
    encoder.model.requires_grad_(True)
    expected = models.embed_separately(encoder.model, sequences)
    assert check_gradients(encoder.model, models.encode(encoder, sequences), expected) >= 20


@pytest.mark.parametrize("family", ["mistral", "qwen3-sliding", "gemma"])
def test_gradients_of_an_adapter_equal_separate_forwards(
    bases: dict[str, BaseModel], family: str
) -> None:
    encoder, sequences = models.load(bases[family]), models.sequences(seed=1)
    models.attach(encoder)
    expected = models.embed_separately(encoder.model, sequences)
    count = check_gradients(encoder.model, models.encode(encoder, sequences), expected)
    assert count == 2 * 2 * 7  # only A and B of seven linear layers in two blocks


@pytest.mark.parametrize("family", ["mistral", "qwen3-sliding", "gemma"])
def test_a_packed_adapter_equals_separate_forwards_of_peft(
    bases: dict[str, BaseModel], family: str, tmp_path: Path
) -> None:
    base, sequences = bases[family], models.sequences(seed=2)
    trained = models.load(base)
    base_vectors = trained.embed(sequences)
    models.attach(trained)
    adapter.save(trained.model, tmp_path / "adapter", base, layers=0, template="t")
    vectors = models.load(base, tmp_path / "adapter").embed(sequences)
    reference = PeftModel.from_pretrained(models.load_plain(base), str(tmp_path / "adapter"))
    with torch.no_grad():
        expected = models.embed_separately(reference, sequences)
    assert max_difference(torch.from_numpy(vectors), expected) <= CLOSE
    assert np.abs(vectors - base_vectors).max(axis=1).min() > 1e-2  # every sequence changes


def test_the_memory_layout_of_a_kernel_s_output_does_not_matter(
    bases: dict[str, BaseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def transposed(*args: Any) -> torch.Tensor:  # like CUDA's fp32 kernel
        return masked_attention(*args).transpose(1, 2).contiguous().transpose(1, 2)

    sequences, (model, _) = models.sequences(), models_of(bases["llama"])
    with torch.no_grad():
        expected = embed_packed(model, sequences, 400, "blocks")
        monkeypatch.setattr(blocks, "masked_attention", transposed)
        actual = embed_packed(model, sequences, 400, "blocks")
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_packed_4_bit_embeddings_equal_separate_forwards(
    bases: dict[str, BaseModel], family: str
) -> None:
    encoder, sequences = models.load(bases[family], quantize="4bit"), models.sequences()
    vectors = torch.from_numpy(encoder.embed(sequences))
    with torch.no_grad():
        expected = models.embed_separately(encoder.model, sequences)
    assert max_difference(vectors, expected) <= CLOSE
    full = torch.from_numpy(models.load(bases[family]).embed(sequences))
    assert max_difference(vectors, full) > 1e-2  # it is quantized


def test_an_adapter_trains_and_loads_on_4_bit_weights(
    bases: dict[str, BaseModel], tmp_path: Path
) -> None:
    base, sequences = bases["mistral"], models.sequences()
    trained = models.load(base, quantize="4bit")
    models.attach(trained)
    before = torch.from_numpy(trained.embed(sequences))  # like an evaluation between two steps
    expected = models.embed_separately(trained.model, sequences)
    assert max_difference(before, expected) <= CLOSE
    assert check_gradients(trained.model, models.encode(trained, sequences), expected) == 2 * 2 * 7
    adapter.save(trained.model, tmp_path / "adapter", base, layers=0, template="t")
    reloaded = models.load(base, tmp_path / "adapter", quantize="4bit")
    np.testing.assert_array_equal(reloaded.embed(sequences), trained.embed(sequences))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", models.BIDIRECTIONAL)
def test_a_bidirectional_model_runs_unpadded(family: str, pooling: str, tmp_path: Path) -> None:
    base, sequences = models.write(tmp_path, family), models.sequences()
    encoder = models.load(base, pooling=pooling)
    assert not encoder.is_causal
    with torch.no_grad():
        expected = models.embed_separately(models.load_plain(base), sequences, pooling)
    assert max_difference(torch.from_numpy(encoder.embed(sequences)), expected) <= CLOSE


def test_gradients_of_a_bidirectional_model_equal_separate_forwards(
    tmp_path: Path,
) -> None:
    encoder: Encoder = models.load(models.write(tmp_path, "bert"), pooling="mean")
    models.attach(encoder, target_modules=("query", "value"))
    sequences = models.sequences(seed=4)
    expected = models.embed_separately(encoder.model, sequences, "mean")
    assert check_gradients(encoder.model, models.encode(encoder, sequences), expected) == 2 * 2 * 2
