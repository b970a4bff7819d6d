"""One packed forward equals one forward a sequence: embeddings and gradients, every family."""

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
from parity.retrieval.engine.block_attention import scaled
from parity.retrieval.models import adapter
from parity.retrieval.models.base_model import BaseModel
from parity.run.errors import Mismatch

CLOSE = 1e-5
CPU = torch.device("cpu")

some = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
lists = st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=14), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseModel]:
    folder = tmp_path_factory.mktemp("bases")
    return {family: models.write(folder / family, family) for family in models.CAUSAL}


def apart(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).detach().abs().max())


def packed(model: Any, asked: list[list[int]], budget: int, kind: Backend) -> torch.Tensor:
    """Embed by tries of any budget, without an encoder."""
    rows: dict[int, torch.Tensor] = {}
    for one in trie.pack(asked, budget):
        nodes = attention.forward(model, one, CPU, kind)
        assert nodes.shape == (len(one), 32)
        for last, owner in zip(one.last.tolist(), one.owner.tolist(), strict=True):
            rows[owner] = torch.nn.functional.normalize(nodes[last], dim=-1)
    return torch.stack([rows[place] for place in range(len(asked))])


def gradients(model: Any, vectors: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the gradients of a loss in which every number of every vector has its own weight."""
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(5))
    (vectors * weights).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    found = {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    model.zero_grad(set_to_none=True)
    return found


def check_gradients(model: Any, first: torch.Tensor, second: torch.Tensor) -> int:
    """Check that each weight's gradients are equal, relative to its largest; return how many."""
    ours, theirs = gradients(model, first), gradients(model, second)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert apart(ours[name], expected) <= CLOSE * float(expected.abs().max()), name
    return len(ours)


@pytest.mark.parametrize("family", models.CAUSAL)
def test_packed_embeddings_are_those_of_one_at_a_time(
    bases: dict[str, BaseModel], family: str
) -> None:
    asked = models.sequences()
    found = torch.from_numpy(models.load(bases[family]).embed(asked))
    with torch.no_grad():
        expected = models.alone(models.plain(bases[family]), asked)
    assert apart(found, expected) <= CLOSE


@pytest.mark.parametrize("kind", ["dense", "blocks"])
@pytest.mark.parametrize("family", ["mistral", "gemma2"])
@some
@given(asked=lists, budget=st.integers(1, 40))
def test_any_sequences_under_any_budget_are_those_of_one_at_a_time(
    bases: dict[str, BaseModel], family: str, kind: Backend, asked: list[list[int]], budget: int
) -> None:
    model, plain = _cached(bases[family])
    with torch.no_grad():
        assert apart(packed(model, asked, budget, kind), models.alone(plain, asked)) <= CLOSE


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("family", models.CAUSAL)
def test_every_layout_computes_what_all_pairs_under_one_mask_give(
    bases: dict[str, BaseModel], family: str
) -> None:
    # Long enough for several blocks, with paths that begin in one and end in another.
    asked = [[*row, *models.sequences(seed=8)[0]] for row in models.sequences(seed=7, count=120)]
    model, plain = _cached(bases[family])
    with torch.no_grad():
        dense, blocks = (packed(model, asked, 900, kind) for kind in ("dense", "blocks"))
        assert apart(dense, models.alone(plain, asked)) <= CLOSE
        assert apart(blocks, dense) <= CLOSE
        assert apart(_flexed(model, asked, 900), dense) <= CLOSE


def _flexed(model: Any, asked: list[list[int]], budget: int) -> torch.Tensor:
    """Do as `packed` with FlexAttention, which a CPU runs without compiling it."""
    window = getattr(model.config, "sliding_window", None) or 0
    rows: dict[int, torch.Tensor] = {}
    for one in trie.pack(asked, budget):
        full = flex_attention.filled(one, flex_attention.BLOCK)
        assert len(full) % flex_attention.BLOCK == 0
        ids, depth, end = (torch.as_tensor(part) for part in (full.ids, full.depth, full.end))
        layout = flex_attention.Flex(end.int(), depth.int(), (0, window), window)
        nodes = model(
            input_ids=ids[None].long(),
            position_ids=depth[None].long(),
            use_cache=False,
            trie=layout,
        ).last_hidden_state[0]
        for last, owner in zip(one.last.tolist(), one.owner.tolist(), strict=True):
            rows[owner] = torch.nn.functional.normalize(nodes[last], dim=-1)
    return torch.stack([rows[place] for place in range(len(asked))])


@pytest.mark.parametrize("window", [0, 3, 40])
def test_a_block_mask_takes_blocks_in_whole_and_in_part_as_the_pairs_say(window: int) -> None:
    asked = [[*row, *models.sequences(seed=8)[0]] for row in models.sequences(seed=7, count=120)]
    (one,) = trie.pack(asked, 10**6)
    full = flex_attention.filled(one, flex_attention.BLOCK)
    end, depth = torch.as_tensor(full.end).int(), torch.as_tensor(full.depth).int()
    mask = flex_attention.block_mask(end, depth, window)
    pairs = torch.as_tensor(trie.visible(full))
    if window:
        pairs &= depth[:, None] - depth[None, :] < window
    by_block = pairs.unfold(0, flex_attention.BLOCK, flex_attention.BLOCK).unfold(
        1, flex_attention.BLOCK, flex_attention.BLOCK
    )
    some, whole = by_block.any(-1).any(-1), by_block.all(-1).all(-1)
    assert some.sum() > len(some)  # not the diagonal alone
    listed = mask.to_dense()[0, 0].bool()
    assert not (some & ~listed).any()  # nothing seen is skipped
    taken = torch.zeros_like(some)
    assert mask.full_kv_num_blocks is not None
    assert mask.full_kv_indices is not None
    for row, count in enumerate(mask.full_kv_num_blocks[0, 0].tolist()):
        taken[row, mask.full_kv_indices[0, 0, row, :count].long()] = True
    assert not (taken & ~whole).any()  # nothing hidden is taken
    if not window:
        torch.testing.assert_close(listed, some)
        torch.testing.assert_close(taken, whole & ~torch.eye(len(whole), dtype=torch.bool))


@pytest.mark.parametrize("kind", ["dense", "blocks"])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])
def test_gradients_of_every_layout_are_those_of_one_at_a_time(
    bases: dict[str, BaseModel], family: str, kind: Backend
) -> None:
    asked = [[*row, *models.sequences(seed=8)[0]] for row in models.sequences(seed=7, count=40)]
    encoder = models.load(bases[family])
    encoder.model.requires_grad_(True)
    plain = models.plain(bases[family]).requires_grad_(True)
    ours = gradients(encoder.model, packed(encoder.model, asked, 10**6, kind))
    theirs = gradients(plain, models.alone(plain, asked))
    for name, expected in theirs.items():
        assert apart(ours[name], expected) <= CLOSE * float(expected.abs().max()), name


def test_a_padded_batch_is_refused_by_a_model_that_runs_tries(bases: dict[str, BaseModel]) -> None:
    model, _ = _cached(bases["llama"])
    with pytest.raises(Mismatch, match="padded batch"):
        model(
            input_ids=torch.tensor([[3, 4], [5, 0]]), attention_mask=torch.tensor([[1, 1], [1, 0]])
        )


@pytest.mark.parametrize("kind", ["bloom", "mpt"])
def test_a_model_whose_attention_cannot_be_replaced_runs_unpadded_and_says_so(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Their scores have positions built in, and they do not ask for attention by name.
    base, asked = models.write_odd(tmp_path, kind), models.sequences(seed=2)
    encoder = models.load(base)
    assert "cannot be replaced" in "".join(capsys.readouterr())
    assert not encoder.shares
    with torch.no_grad():
        expected = models.alone(models.plain(base), asked)
    assert apart(torch.from_numpy(encoder.embed(asked)), expected) <= CLOSE


_MODELS: dict[str, tuple[Any, Any]] = {}


def _cached(base: BaseModel) -> tuple[Any, Any]:
    """Return the model as an encoder runs it, and as transformers alone does."""
    if base.name not in _MODELS:
        _MODELS[base.name] = models.load(base).model, models.plain(base)
    return _MODELS[base.name]


@pytest.mark.parametrize("family", models.CAUSAL)
def test_budgets_that_cut_prefixes_give_the_same_embeddings(
    bases: dict[str, BaseModel], family: str
) -> None:
    asked = models.sequences(seed=3)
    narrow, wide = models.load(bases[family]), models.load(bases[family], token_budget=4096)
    cut, whole = trie.pack(asked, 64), trie.pack(asked, 4096)
    assert sum(map(len, cut)) > sum(map(len, whole))  # prefixes were repeated
    assert len(whole) == 1
    np.testing.assert_allclose(narrow.embed(asked), wide.embed(asked), atol=CLOSE, rtol=0)


@pytest.mark.parametrize("family", models.SLIDING)
def test_the_window_of_the_tests_matters(
    bases: dict[str, BaseModel], family: str, tmp_path: Path
) -> None:
    asked = models.sequences()
    assert models.LONGEST > 2 * models.WINDOW
    wide = models.write(tmp_path, family, sliding_window=4096)
    found, unslid = models.load(bases[family]).embed(asked), models.load(wide).embed(asked)
    far = np.array([len(row) > 2 * models.WINDOW for row in asked])
    near = np.array([len(row) <= models.WINDOW for row in asked])
    assert near.any()
    assert np.abs(found - unslid)[far].max(axis=1).min() > 1e-3
    np.testing.assert_allclose(found[near], unslid[near], atol=CLOSE, rtol=0)


def test_mistral_without_a_window_slides_nowhere(tmp_path: Path) -> None:
    base, asked = models.write(tmp_path, "mistral", sliding_window=None), models.sequences()
    with torch.no_grad():
        expected = models.alone(models.plain(base), asked)
    assert apart(torch.from_numpy(models.load(base).embed(asked)), expected) <= CLOSE


@pytest.mark.parametrize("family", models.CAUSAL)
def test_gradients_of_all_weights_are_those_of_one_at_a_time(
    bases: dict[str, BaseModel], family: str
) -> None:
    encoder, asked = models.load(bases[family]), models.sequences(seed=1)
    encoder.model.requires_grad_(True)
    twins = models.alone(encoder.model, asked)
    assert check_gradients(encoder.model, models.encode(encoder, asked), twins) >= 20


@pytest.mark.parametrize("family", ["mistral", "qwen3-sliding", "gemma"])
def test_gradients_of_a_trained_adapter_are_those_of_one_at_a_time(
    bases: dict[str, BaseModel], family: str
) -> None:
    encoder, asked = models.load(bases[family]), models.sequences(seed=1)
    models.attach(encoder)
    twins = models.alone(encoder.model, asked)
    count = check_gradients(encoder.model, models.encode(encoder, asked), twins)
    assert count == 2 * 2 * 7  # A and B of seven linear layers in two blocks, and nothing else


@pytest.mark.parametrize("family", ["mistral", "qwen3-sliding", "gemma"])
def test_an_adapter_runs_packed_as_peft_runs_it_one_at_a_time(
    bases: dict[str, BaseModel], family: str, tmp_path: Path
) -> None:
    base, asked = bases[family], models.sequences(seed=2)
    trained = models.load(base)
    bare = trained.embed(asked)
    models.attach(trained)
    adapter.save(trained.model, tmp_path / "adapter", base, layers=0, template="t")
    found = models.load(base, tmp_path / "adapter").embed(asked)
    judge = PeftModel.from_pretrained(models.plain(base), str(tmp_path / "adapter"))
    with torch.no_grad():
        expected = models.alone(judge, asked)
    assert apart(torch.from_numpy(found), expected) <= CLOSE
    assert np.abs(found - bare).max(axis=1).min() > 1e-2  # every sequence felt it


def test_a_kernel_may_lay_its_output_out_as_it_likes(
    bases: dict[str, BaseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def otherwise(*args: Any) -> torch.Tensor:  # as CUDA's fp32 kernel does
        return scaled(*args).transpose(1, 2).contiguous().transpose(1, 2)

    asked, (model, _) = models.sequences(), _cached(bases["llama"])
    with torch.no_grad():
        expected = packed(model, asked, 400, "blocks")
        monkeypatch.setattr(blocks, "scaled", otherwise)
        found = packed(model, asked, 400, "blocks")
    assert torch.equal(found, expected)


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_four_bits_packed_are_four_bits_one_at_a_time(
    bases: dict[str, BaseModel], family: str
) -> None:
    encoder, asked = models.load(bases[family], quantize="4bit"), models.sequences()
    found = torch.from_numpy(encoder.embed(asked))
    with torch.no_grad():
        expected = models.alone(encoder.model, asked)
    assert apart(found, expected) <= CLOSE
    full = torch.from_numpy(models.load(bases[family]).embed(asked))
    assert apart(found, full) > 1e-2  # it is quantized


def test_an_adapter_trains_and_loads_on_four_bits(
    bases: dict[str, BaseModel], tmp_path: Path
) -> None:
    base, asked = bases["mistral"], models.sequences()
    trained = models.load(base, quantize="4bit")
    models.attach(trained)
    before = torch.from_numpy(trained.embed(asked))  # as an evaluation between two steps does
    twins = models.alone(trained.model, asked)
    assert apart(before, twins) <= CLOSE
    assert check_gradients(trained.model, models.encode(trained, asked), twins) == 2 * 2 * 7
    adapter.save(trained.model, tmp_path / "adapter", base, layers=0, template="t")
    again = models.load(base, tmp_path / "adapter", quantize="4bit")
    np.testing.assert_array_equal(again.embed(asked), trained.embed(asked))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", models.BIDIRECTIONAL)
def test_a_model_that_is_not_causal_runs_unpadded(
    family: str, pooling: str, tmp_path: Path
) -> None:
    base, asked = models.write(tmp_path, family), models.sequences()
    encoder = models.load(base, pooling=pooling)
    assert not encoder.causal
    with torch.no_grad():
        expected = models.alone(models.plain(base), asked, pooling)
    assert apart(torch.from_numpy(encoder.embed(asked)), expected) <= CLOSE


def test_gradients_of_a_model_that_is_not_causal_are_those_of_one_at_a_time(
    tmp_path: Path,
) -> None:
    encoder: Encoder = models.load(models.write(tmp_path, "bert"), pooling="mean")
    models.attach(encoder, target_modules=("query", "value"))
    asked = models.sequences(seed=4)
    twins = models.alone(encoder.model, asked, "mean")
    assert check_gradients(encoder.model, models.encode(encoder, asked), twins) == 2 * 2 * 2
