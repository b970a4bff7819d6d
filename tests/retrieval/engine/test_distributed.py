"""Two real processes see what one sees: equal bytes of embeddings, gradients that add up."""

import os
import sys
import time
from pathlib import Path

import models
import pair
import pytest
import torch
from safetensors.torch import load_file, save_file

from parity.retrieval.encoder import Encoder
from parity.retrieval.engine import trie
from parity.retrieval.engine.distributed import ProcessGroup, launched
from parity.retrieval.models import base_model
from parity.run.config.run_file import EncoderConfig

Tensors = dict[str, torch.Tensor]


def measure(folder: Path, workers: ProcessGroup) -> tuple[Tensors, Tensors]:
    """Return embeddings, and the gradients of one training step, as this process sees them."""
    config = EncoderConfig(precision="fp32", device="cpu", token_budget=64)
    encoder = Encoder(base_model.describe("mistral", folder), config, workers=workers)
    models.attach(encoder)
    asked = models.sequences()
    assert len(trie.pack(asked, 64)) % 2 == 1  # not as many for each of two
    vectors = models.encode(encoder, asked)
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(5))
    (vectors * weights).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    gradients = {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad
        for name, weight in sorted(encoder.model.named_parameters())
        if weight.requires_grad
    }
    workers.add_up(list(gradients.values()))
    embeddings = {
        "many packs": torch.from_numpy(encoder.embed(asked)),
        "one pack": torch.from_numpy(encoder.embed(asked[:1])),  # the second process owns none
        "no pack": torch.from_numpy(encoder.embed([])),
        "with gradients": vectors.detach(),
    }
    return embeddings, gradients


def work(folder: Path, target: Path) -> None:
    """Be one of several processes: measure, write what was seen, the first one late."""
    torch.set_num_threads(1)
    workers = launched()
    assert (workers.rank, workers.world) == (int(os.environ["RANK"]), 2)
    embeddings, gradients = measure(folder, workers)
    save_file(embeddings, target / f"embeddings-{workers.rank}")
    save_file(gradients, target / f"gradients-{workers.rank}")
    if workers.main:
        time.sleep(0.5)
        (target / "late").touch()
    workers.wait()
    assert (target / "late").exists()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> base_model.BaseModel:
    return models.write(tmp_path_factory.mktemp("bases") / "mistral", "mistral")


@pytest.fixture(scope="module")
def seen(base: base_model.BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let two processes work, and return the folder of what they saw."""
    target = tmp_path_factory.mktemp("seen")
    pair.run(__file__, str(base.folder), str(target))
    return target


def test_two_processes_embed_to_the_bytes_of_one(base: base_model.BaseModel, seen: Path) -> None:
    expected, _ = measure(base.folder, ProcessGroup())
    for rank in range(2):
        found = load_file(seen / f"embeddings-{rank}")
        assert found.keys() == expected.keys()
        for name, vectors in expected.items():
            assert found[name].numpy().tobytes() == vectors.numpy().tobytes(), name


def test_gradients_of_two_processes_add_up_to_those_of_one(
    base: base_model.BaseModel, seen: Path
) -> None:
    _, expected = measure(base.folder, ProcessGroup())
    first, second = (load_file(seen / f"gradients-{rank}") for rank in range(2))
    assert first.keys() == second.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(first[name], second[name])
        assert (first[name] - gradient).abs().max() <= 1e-5 * gradient.abs().max(), name


def test_every_pack_has_one_owner() -> None:
    workers = [ProcessGroup(rank, 3) for rank in range(3)]
    sizes = [5, 9, 2, 7, 5, 1, 3]
    assert {worker.deal(sizes) for worker in workers} == {(2, 0, 0, 1, 2, 1, 1)}
    assert [worker.main for worker in workers] == [True, False, False]


def test_alone_all_is_owned_and_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = launched()
    assert alone == ProcessGroup(0, 1)
    assert alone.main
    assert alone.deal([7, 9]) == (0, 0)
    parts = [torch.ones(2, requires_grad=True)]
    assert alone.share(parts, [0]) is parts
    alone.add_up(parts)
    alone.wait()
    assert parts[0].tolist() == [1, 1]


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]))
