"""Two real processes give the embeddings of one, and gradients with the same sum."""

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
from parity.retrieval.engine.distributed import ProcessGroup, current_group
from parity.retrieval.models import base_model
from parity.run.config.encoder import EncoderConfig

Tensors = dict[str, torch.Tensor]


def measure(folder: Path, workers: ProcessGroup) -> tuple[Tensors, Tensors]:
    """Return embeddings and gradients of one training step in this process."""
    config = EncoderConfig(precision="fp32", device="cpu", token_budget=64)
    encoder = Encoder(base_model.describe("mistral", folder), config, workers=workers)
    models.attach(encoder)
    sequences = models.sequences()
    assert len(trie.pack(sequences, 64)) % 2 == 1  # an odd number of packs
    vectors = models.encode(encoder, sequences)
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(5))
    (vectors * weights).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    gradients = {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad
        for name, weight in sorted(encoder.model.named_parameters())
        if weight.requires_grad
    }
    workers.all_reduce(list(gradients.values()))
    embeddings = {
        "many packs": torch.from_numpy(encoder.embed(sequences)),
        "one pack": torch.from_numpy(encoder.embed(sequences[:1])),  # the second process owns none
        "no pack": torch.from_numpy(encoder.embed([])),
        "with gradients": vectors.detach(),
    }
    return embeddings, gradients


def work(folder: Path, target: Path) -> None:
    """Run one of two processes: measure and write the tensors, rank 0 with a delay."""
    torch.set_num_threads(1)
    workers = current_group()
    assert (workers.rank, workers.world_size) == (int(os.environ["RANK"]), 2)
    embeddings, gradients = measure(folder, workers)
    save_file(embeddings, target / f"embeddings-{workers.rank}")
    save_file(gradients, target / f"gradients-{workers.rank}")
    if workers.is_main:
        time.sleep(0.5)
        (target / "late").touch()
    workers.wait()
    assert (target / "late").exists()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> base_model.BaseModel:
    return models.write(tmp_path_factory.mktemp("bases") / "mistral", "mistral")


@pytest.fixture(scope="module")
def outputs(base: base_model.BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run two processes and return the folder of their tensors."""
    target = tmp_path_factory.mktemp("seen")
    pair.run(__file__, str(base.folder), str(target))
    return target


def test_two_processes_give_the_bytes_of_one(base: base_model.BaseModel, outputs: Path) -> None:
    expected, _ = measure(base.folder, ProcessGroup())
    for rank in range(2):
        actual = load_file(outputs / f"embeddings-{rank}")
        assert actual.keys() == expected.keys()
        for name, vectors in expected.items():
            assert actual[name].numpy().tobytes() == vectors.numpy().tobytes(), name


def test_gradients_of_two_processes_sum_to_those_of_one(
    base: base_model.BaseModel, outputs: Path
) -> None:
    _, expected = measure(base.folder, ProcessGroup())
    first, second = (load_file(outputs / f"gradients-{rank}") for rank in range(2))
    assert first.keys() == second.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(first[name], second[name])
        assert (first[name] - gradient).abs().max() <= 1e-5 * gradient.abs().max(), name


def test_every_pack_has_one_owner() -> None:
    workers = [ProcessGroup(rank, 3) for rank in range(3)]
    sizes = [5, 9, 2, 7, 5, 1, 3]
    assert {worker.assign_ranks(sizes) for worker in workers} == {(2, 0, 0, 1, 2, 1, 1)}
    assert [worker.is_main for worker in workers] == [True, False, False]


def test_a_single_process_owns_all_packs_and_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    group = current_group()
    assert group == ProcessGroup(0, 1)
    assert group.is_main
    assert group.assign_ranks([7, 9]) == (0, 0)
    parts = [torch.ones(2, requires_grad=True)]
    assert group.share(parts, [0]) is parts
    group.all_reduce(parts)
    group.wait()
    assert parts[0].tolist() == [1, 1]


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]))
