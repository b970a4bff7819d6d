"""Tests of the embedding cache: mining and scoring use it, training and the kernel do not."""

import os
from typing import Any

import pytest
import torch
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture

from parity.pipeline import dag, encoder_loading
from parity.retrieval.encoder import Encoder
from parity.run.experiment import Run


def costs_of(run: Run, stage: str) -> dict[str, dict[str, Any]]:
    """Return the costs of each list of texts of a stage, from its manifest."""
    manifest = dag.StageGraph().standing(run, stage).manifest
    assert manifest is not None
    lists: dict[str, dict[str, Any]] = manifest.facts["took"]
    return lists


def refuse(*_: object) -> torch.Tensor:
    raise AssertionError("the model was used")


@pytest.mark.parametrize("stage", ["mine", "eval", "predict"])
def test_a_repeated_stage_computes_nothing_and_writes_the_same_bytes(
    predicted_run: RunFixture, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = predicted_run.open()
    folder = dag.folder(run, stage)
    before = run_fixture.contents(folder, ".jsonl", ".npy", ".csv")
    first = costs_of(run, stage)
    assert first["encode the queries"]["tokens"] > 0 == first["encode the queries"]["cached"]
    monkeypatch.setattr(Encoder, "_states", refuse)
    predicted_run.run_stages(stage)
    assert run_fixture.contents(folder, ".jsonl", ".npy", ".csv") == before
    second = costs_of(run, stage)
    assert second.keys() == first.keys() == {"encode the corpus", "encode the queries"}
    assert all(
        cost["cached"] == cost["tokens_without_sharing"] > 0 == cost["tokens"]
        for cost in second.values()
    )


def test_training_does_not_use_the_embedding_cache(small_run: RunFixture) -> None:
    run = small_run.run_stages("prepare", "mine")
    cached = run_fixture.digests(run.workspace.embeddings)
    assert len(cached) == 2  # the corpus, the train rows
    small_run.run_stages("train")
    assert run_fixture.digests(run.workspace.embeddings) == cached
    # The trained adapter has other weights, so eval finds no cached embeddings of it.
    small_run.run_stages("eval")
    assert all(cost["cached"] == 0 for cost in costs_of(run, "eval").values())


def test_another_adapter_does_not_use_cached_embeddings(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    encoder_loading.load_caching_encoder(
        run.config.encoder, run.workspace, run.workspace.adapter(0)
    ).embed([[5, 6]])
    for adapter in (None, run.workspace.epoch(0, 1)):
        encoder = encoder_loading.load_caching_encoder(run.config.encoder, run.workspace, adapter)
        encoder.embed([[5, 6]])
        is_same_adapter = (
            encoder.adapter
            == encoder_loading.load_encoder(
                run.config.encoder, run.workspace, run.workspace.adapter(0)
            ).adapter
        )
        assert (encoder.embedded.cached > 0) == is_same_adapter


def test_an_encoder_caches_embeddings_only_on_request(small_run: RunFixture) -> None:
    run = small_run.run_stages("prepare")
    encoder_loading.load_encoder(run.config.encoder, run.workspace).embed([[5, 6]])
    assert not run.workspace.embeddings.exists()
    encoder_loading.load_caching_encoder(run.config.encoder, run.workspace).embed([[5, 6]])
    assert len(run_fixture.digests(run.workspace.embeddings)) == 1


def test_compiled_code_is_cached_in_the_data_folder_unless_the_environment_sets_a_folder(
    small_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, run = "TORCHINDUCTOR_CACHE_DIR", small_run.run_stages("prepare")
    monkeypatch.setenv(name, "elsewhere")
    encoder_loading.load_encoder(run.config.encoder, run.workspace)
    assert os.environ[name] == "elsewhere"
    monkeypatch.delenv(name)
    encoder_loading.load_encoder(run.config.encoder, run.workspace)
    assert os.environ[name] == str(run.workspace.compiled.resolve())
    assert run.workspace.compiled.is_relative_to(run.workspace.data)
