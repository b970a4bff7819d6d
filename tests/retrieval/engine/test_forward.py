"""Forward passes of packs: compiled layers, steps captured as CUDA graphs, and the fallback."""

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
from parity.run.config.training import TrainingConfig
from parity.training.batches import Batch
from parity.training.gradcache import add_gradient

CPU = torch.device("cpu")
CLOSE = 1e-5


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("llama"), "llama", head_dim=16)


def test_captured_packs_have_few_sizes_and_little_padding() -> None:
    counts = np.arange(1, 40_000)
    steps = np.array([forward.size_step(int(count)) for count in counts])
    sizes = -(-counts // steps) * steps
    assert (sizes >= counts).all()
    assert ((sizes - counts) / counts)[counts > 8192].max() <= 1 / 8
    assert len(set(sizes[(counts > 8192) & (counts <= 16384)].tolist())) == 8
    assert (sizes % flex_attention.BLOCK == 0).all()


def test_padding_keeps_the_tokens_and_attends_only_to_itself() -> None:
    (pack,) = trie.pack(models.sequences(), 10**6)
    padded = flex_attention.pad_pack(pack, flex_attention.BLOCK)
    visible = trie.attention_mask(padded)
    np.testing.assert_array_equal(visible[: len(pack), : len(pack)], trie.attention_mask(pack))
    np.testing.assert_array_equal(
        visible[len(pack) :], np.eye(len(padded), dtype=bool)[len(pack) :]
    )
    assert not visible[: len(pack), len(pack) :].any()


def test_layers_that_cannot_be_compiled_run_in_blocks_with_a_message(
    llama: BaseModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Any) -> None:
        raise TorchDynamoException("no compiler\nand much more")

    monkeypatch.setattr(flex_attention, "compile_layers", refuse)
    model = models.load(llama).model
    (pack,) = trie.pack(models.sequences(), 10**6)
    with torch.no_grad():
        runner = Forward(CPU, torch.float32, "flex")
        states = runner.states(model, pack)
        expected = Forward(CPU, torch.float32, "blocks").states(model, pack)
    assert runner.kind == "blocks"
    torch.testing.assert_close(states, expected, rtol=0, atol=0)
    output = "".join(capsys.readouterr())
    assert "cannot be compiled (no compiler)" in output
    assert "much more" not in output


def test_one_compilation_serves_all_layers_and_sizes_of_a_training(
    llama: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = CompileCounter()
    compile_by = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module: compile_by(module, backend=counter)
    )
    monkeypatch.setattr(
        flex_attention, "FlexLayout", FullLayout
    )  # FlexAttention has no backward on CPUs
    monkeypatch.setattr(forward, "_SMALL_MODEL", 0)
    encoder = models.load(llama)
    models.attach(encoder)
    encoder.model.train()
    runner = Forward(CPU, torch.float32, "flex")
    for count in (3, 30, 90):
        (pack,) = trie.pack(models.sequences(count=count), 10**6)
        runner.states(encoder.model, pack).sum().backward()  # type: ignore[no-untyped-call]
    assert len(flex_attention.decoder_layers(encoder.model)) > 1
    assert counter.frame_count == 1
    with torch.no_grad():
        runner.states(encoder.model, pack)
    assert counter.frame_count == 2


class FullLayout:
    """A layout in which all tokens attend to all."""

    def __init__(self, *_: object) -> None:
        """Ignore the masks."""

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: object
    ) -> torch.Tensor:
        """See `attention.Layout.attend`."""
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)


def on_gpu(base: BaseModel, **changes: Any) -> Encoder:
    return models.load(base, device="cuda", token_budget=4096, **changes)


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["mistral", "qwen2-sliding", "gemma2", "gemma3"])
def test_compiled_embeddings_equal_separate_forwards(family: str, tmp_path: Path) -> None:
    base = models.write(tmp_path, family, head_dim=16)
    sequences = [
        [*row, *models.sequences(seed=8)[0]] for row in models.sequences(seed=7, count=120)
    ]
    encoder = on_gpu(base)
    assert encoder.forward.kind == "flex"
    with torch.no_grad():
        expected = models.embed_separately(models.load_plain(base), sequences)
    for subset in (
        sequences,
        sequences[:50],
        sequences[:3],
    ):  # other sizes use the same compilation
        vectors = torch.from_numpy(encoder.embed(subset))
        assert float((vectors - expected[: len(subset)]).abs().max()) <= CLOSE
    assert encoder.forward.kind == "flex"


def captured_sizes(encoder: Encoder) -> list[int]:
    """Return the captured pack sizes of the encoder's model."""
    return list(encoder.forward._compiled_model(encoder.model)._captured)


def run_step(encoder: Encoder, budget: int, dropout: float) -> tuple[float, list[torch.Tensor]]:
    """Return the loss and the gradients of a batch in training mode."""
    sequences = [[*row, *models.sequences(seed=8)[0]] for row in models.sequences(seed=7, count=47)]
    batch = Batch(tuple("abcdefgh"), tuple(range(40)), tuple(range(0, 40, 5)), ((),) * 8)  # type: ignore[arg-type]
    config = TrainingConfig(token_budget=budget, lora_dropout=dropout, temperature=0.1)
    encoder.model.train()
    loss = add_gradient(
        encoder, (sequences[:8], sequences[8:48]), batch, config, seed="one"
    ).loss.item()
    weights = [weight for weight in encoder.model.parameters() if weight.requires_grad]
    grads = [weight.grad.clone().cpu() for weight in weights if weight.grad is not None]
    encoder.model.zero_grad()
    return loss, grads


@pytest.mark.gpu
@pytest.mark.parametrize("budget", [16384, 512])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_captured_step_has_the_gradient_of_the_cpu(
    family: str, budget: int, tmp_path: Path
) -> None:
    base = models.write(tmp_path, family, head_dim=16)
    encoder_gpu, reference = on_gpu(base), models.load(base)
    for encoder in (encoder_gpu, reference):
        models.attach(encoder)
    encoder_gpu.model.to("cuda")
    expected = run_step(reference, 16384, 0.0)
    for _ in range(3):  # captured, replayed, replayed
        loss, grads = run_step(encoder_gpu, budget, 0.0)
        assert abs(loss - expected[0]) <= CLOSE * expected[0]
        for gradient, reference_gradient in zip(grads, expected[1], strict=True):
            assert float((gradient - reference_gradient).abs().max()) <= 3e-5 * float(
                reference_gradient.abs().max()
            )
    assert captured_sizes(encoder_gpu)
    assert encoder_gpu.forward.kind == "flex"


@pytest.mark.gpu
def test_a_captured_step_equals_the_uncaptured_one_bitwise_with_dropout(
    llama: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    monkeypatch.setattr(
        forward, "size_step", lambda _: flex_attention.BLOCK
    )  # otherwise packs are padded further
    for limit in (forward._SMALL_MODEL, 0):
        monkeypatch.setattr(forward, "_SMALL_MODEL", limit)
        encoder = on_gpu(llama)
        models.attach(encoder, lora_dropout=0.2)
        encoder.model.to("cuda")
        run_step(encoder, 16384, 0.2)
        results.append(run_step(encoder, 16384, 0.2))
        assert bool(captured_sizes(encoder)) == bool(limit)
    assert results[0][0] == results[1][0]
    for first, second in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama"])
def test_bf16_is_as_close_to_fp32_as_a_padded_batch(family: str, tmp_path: Path) -> None:
    base = models.write(tmp_path, family, head_dim=16)
    sequences = models.sequences(seed=5, count=60)
    with torch.no_grad():
        exact = models.embed_separately(models.load_plain(base), sequences)
        vectors = torch.from_numpy(on_gpu(base, precision="bf16").embed(sequences))
        padded = embed_padded(models.load_plain(base).to("cuda", torch.bfloat16), sequences).cpu()
    assert float((vectors - exact).norm()) <= 1.1 * float((padded - exact).norm())


def embed_padded(model: Any, sequences: list[list[int]]) -> torch.Tensor:
    """Return the embeddings of a padded batch, as other packages compute them."""
    width = max(map(len, sequences))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in sequences], device="cuda")
    mask = torch.tensor(
        [[0] * (width - len(row)) + [1] * len(row) for row in sequences], device="cuda"
    )
    hidden = model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, -1]
    return torch.nn.functional.normalize(hidden.float(), dim=-1)
