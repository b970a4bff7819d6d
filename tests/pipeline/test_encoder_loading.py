"""What mines and scores keeps embeddings on disk; what trains, and what ships, keeps none."""

import os
from typing import Any

import pytest
import torch
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench

from parity.pipeline import dag, encoder_loading
from parity.retrieval.encoder import Encoder
from parity.run.experiment import Run


def took(run: Run, stage: str) -> dict[str, dict[str, Any]]:
    """Return what each list of a stage took, as its manifest says."""
    found = dag.StageGraph().standing(run, stage).manifest
    assert found is not None
    lists: dict[str, dict[str, Any]] = found.facts["took"]
    return lists


def refuse(*_: object) -> torch.Tensor:
    raise AssertionError("the model was asked")


@pytest.mark.parametrize("stage", ["mine", "eval", "predict"])
def test_a_stage_done_again_computes_nothing_and_writes_the_same_bytes(
    made: Bench, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made.run()
    place = dag.folder(run, stage)
    before = benches.contents(place, ".jsonl", ".npy", ".csv")
    first = took(run, stage)
    assert first["encode the queries"]["tokens"] > 0 == first["encode the queries"]["kept"]
    monkeypatch.setattr(Encoder, "_states", refuse)
    made.make(stage)
    assert benches.contents(place, ".jsonl", ".npy", ".csv") == before
    again = took(run, stage)
    assert again.keys() == first.keys() == {"encode the corpus", "encode the queries"}
    assert all(one["kept"] == one["flat"] > 0 == one["tokens"] for one in again.values())


def test_training_neither_keeps_nor_looks_up(bench: Bench) -> None:
    run = bench.make("prepare", "mine")
    kept = benches.digests(run.workspace.embeddings)
    assert len(kept) == 2  # the corpus, the train rows
    bench.make("train")
    assert benches.digests(run.workspace.embeddings) == kept
    # Its rows are scored by weights in memory: what another adapter left is of no use to it.
    bench.make("eval")
    assert all(one["kept"] == 0 for one in took(run, "eval").values())


def test_another_adapter_scores_anew(made: Bench) -> None:
    run = made.run()
    encoder_loading.keeping(run, run.workspace.adapter(0)).embed([[5, 6]])
    for adapter in (None, run.workspace.epoch(0, 1)):
        encoder = encoder_loading.keeping(run, adapter)
        encoder.embed([[5, 6]])
        same = encoder.adapter == encoder_loading.encoder(run, run.workspace.adapter(0)).adapter
        assert (encoder.embedded.kept > 0) == same


def test_an_encoder_keeps_nothing_unless_it_is_asked_for(bench: Bench) -> None:
    run = bench.make("prepare")
    encoder_loading.encoder(run).embed([[5, 6]])
    assert not run.workspace.embeddings.exists()
    encoder_loading.keeping(run).embed([[5, 6]])
    assert len(benches.digests(run.workspace.embeddings)) == 1


def test_what_is_compiled_is_kept_beside_the_runs_unless_someone_says_where(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, run = "TORCHINDUCTOR_CACHE_DIR", bench.make("prepare")
    monkeypatch.setenv(name, "elsewhere")
    encoder_loading.encoder(run)
    assert os.environ[name] == "elsewhere"
    monkeypatch.delenv(name)
    encoder_loading.encoder(run)
    assert os.environ[name] == str(run.workspace.compiled.resolve())
    assert run.workspace.compiled.is_relative_to(run.workspace.data)
