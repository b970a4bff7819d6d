"""How packs run: compiled layers, recorded steps, and what happens where neither can be had."""

from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.testing import CompileCounter

from parity.retrieval.encoder import Encoder
from parity.retrieval.engine import flex_attention, forward, trie
from parity.retrieval.engine.forward import Forward
from parity.retrieval.models.base_model import BaseModel
from parity.run.config.run_file import TrainingConfig
from parity.training.batches import Batch
from parity.training.gradcache import gradient

CPU = torch.device("cpu")
CLOSE = 1e-5


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("llama"), "llama", head_dim=16)


def test_recorded_packs_come_in_few_sizes_and_are_filled_little() -> None:
    counts = np.arange(1, 40_000)
    steps = np.array([forward.step(int(count)) for count in counts])
    sizes = -(-counts // steps) * steps
    assert (sizes >= counts).all()
    assert ((sizes - counts) / counts)[counts > 8192].max() <= 1 / 8
    assert len(set(sizes[(counts > 8192) & (counts <= 16384)].tolist())) == 8
    assert (sizes % flex_attention.BLOCK == 0).all()


def test_a_filled_pack_keeps_its_nodes_and_adds_some_that_see_themselves_only() -> None:
    (pack,) = trie.pack(models.sequences(), 10**6)
    full = flex_attention.filled(pack, flex_attention.BLOCK)
    seen = trie.visible(full)
    np.testing.assert_array_equal(seen[: len(pack), : len(pack)], trie.visible(pack))
    np.testing.assert_array_equal(seen[len(pack) :], np.eye(len(full), dtype=bool)[len(pack) :])
    assert not seen[: len(pack), len(pack) :].any()


def test_layers_that_cannot_be_compiled_run_in_blocks_and_it_is_said(
    llama: BaseModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Any) -> None:
        raise TorchDynamoException("no compiler\nand much more")

    monkeypatch.setattr(flex_attention, "compile_layers", refuse)
    model = models.load(llama).model
    (pack,) = trie.pack(models.sequences(), 10**6)
    with torch.no_grad():
        runs = Forward(CPU, torch.float32, "flex")
        found = runs.states(model, pack)
        expected = Forward(CPU, torch.float32, "blocks").states(model, pack)
    assert runs.kind == "blocks"
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    told = "".join(capsys.readouterr())
    assert "cannot be compiled here (no compiler)" in told
    assert "much more" not in told


def test_one_compilation_serves_all_layers_and_sizes_of_a_training(
    llama: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = CompileCounter()
    compile_by = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda own: compile_by(own, backend=counter))
    monkeypatch.setattr(
        flex_attention, "Flex", Everything
    )  # CPUs have no backward of FlexAttention
    monkeypatch.setattr(forward, "_SMALL", 0)
    encoder = models.load(llama)
    models.attach(encoder)
    encoder.model.train()
    runs = Forward(CPU, torch.float32, "flex")
    for count in (3, 30, 90):
        (pack,) = trie.pack(models.sequences(count=count), 10**6)
        runs.states(encoder.model, pack).sum().backward()  # type: ignore[no-untyped-call]
    assert len(flex_attention.layers(encoder.model)) > 1
    assert counter.frame_count == 1
    with torch.no_grad():
        runs.states(encoder.model, pack)
    assert counter.frame_count == 2


class Everything:
    """A layout in which all nodes see all."""

    def __init__(self, *_: object) -> None:
        """Nothing is hidden."""

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: object
    ) -> torch.Tensor:
        """See `attention.Layout.attend`."""
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)


def on_gpu(base: BaseModel, **changes: Any) -> Encoder:
    return models.load(base, device="cuda", token_budget=4096, **changes)


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["mistral", "qwen2-sliding", "gemma2", "gemma3"])
def test_compiled_embeddings_are_those_of_one_at_a_time(family: str, tmp_path: Path) -> None:
    base = models.write(tmp_path, family, head_dim=16)
    asked = [[*row, *models.sequences(seed=8)[0]] for row in models.sequences(seed=7, count=120)]
    encoder = on_gpu(base)
    assert encoder.forward.kind == "flex"
    with torch.no_grad():
        expected = models.alone(models.plain(base), asked)
    for some in (asked, asked[:50], asked[:3]):  # other sizes, the same compilation
        found = torch.from_numpy(encoder.embed(some))
        assert float((found - expected[: len(some)]).abs().max()) <= CLOSE
    assert encoder.forward.kind == "flex"


def recordings(encoder: Encoder) -> list[int]:
    """Return the sizes that were recorded of the encoder's model."""
    return list(encoder.forward._of(encoder.model)._recorded)


def step_of(encoder: Encoder, budget: int, dropout: float) -> tuple[float, list[torch.Tensor]]:
    """Return the loss and the gradients of a batch in training mode."""
    asked = [[*row, *models.sequences(seed=8)[0]] for row in models.sequences(seed=7, count=47)]
    batch = Batch(tuple("abcdefgh"), tuple(range(40)), tuple(range(0, 40, 5)), ((),) * 8)  # type: ignore[arg-type]
    config = TrainingConfig(token_budget=budget, lora_dropout=dropout, temperature=0.1)
    encoder.model.train()
    loss = gradient(encoder, (asked[:8], asked[8:48]), batch, config, seed="one").loss.item()
    weights = [weight for weight in encoder.model.parameters() if weight.requires_grad]
    grads = [weight.grad.clone().cpu() for weight in weights if weight.grad is not None]
    encoder.model.zero_grad()
    return loss, grads


@pytest.mark.gpu
@pytest.mark.parametrize("budget", [16384, 512])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_recorded_step_has_the_gradient_of_the_cpu(
    family: str, budget: int, tmp_path: Path
) -> None:
    base = models.write(tmp_path, family, head_dim=16)
    ours, reference = on_gpu(base), models.load(base)
    for encoder in (ours, reference):
        models.attach(encoder)
    ours.model.to("cuda")
    expected = step_of(reference, 16384, 0.0)
    for _ in range(3):  # recorded, replayed, replayed
        loss, grads = step_of(ours, budget, 0.0)
        assert abs(loss - expected[0]) <= CLOSE * expected[0]
        for found, wanted in zip(grads, expected[1], strict=True):
            assert float((found - wanted).abs().max()) <= 3e-5 * float(wanted.abs().max())
    assert recordings(ours)
    assert ours.forward.kind == "flex"


@pytest.mark.gpu
def test_a_recorded_step_is_the_unrecorded_one_bit_by_bit_dropout_included(
    llama: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(
        forward, "step", lambda _: flex_attention.BLOCK
    )  # else it is filled further
    for small in (forward._SMALL, 0):
        monkeypatch.setattr(forward, "_SMALL", small)
        encoder = on_gpu(llama)
        models.attach(encoder, lora_dropout=0.2)
        encoder.model.to("cuda")
        step_of(encoder, 16384, 0.2)
        found.append(step_of(encoder, 16384, 0.2))
        assert bool(recordings(encoder)) == bool(small)
    assert found[0][0] == found[1][0]
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama"])
def test_bf16_is_no_further_from_fp32_than_a_padded_batch(family: str, tmp_path: Path) -> None:
    base = models.write(tmp_path, family, head_dim=16)
    asked = models.sequences(seed=5, count=60)
    with torch.no_grad():
        exact = models.alone(models.plain(base), asked)
        ours = torch.from_numpy(on_gpu(base, precision="bf16").embed(asked))
        padded = _padded(models.plain(base).to("cuda", torch.bfloat16), asked).cpu()
    assert float((ours - exact).norm()) <= 1.1 * float((padded - exact).norm())


def _padded(model: Any, asked: list[list[int]]) -> torch.Tensor:
    """Embed as a padded batch, the way of other packages."""
    width = max(map(len, asked))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in asked], device="cuda")
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in asked], device="cuda")
    hidden = model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, -1]
    return torch.nn.functional.normalize(hidden.float(), dim=-1)
