"""Faults of the list of pitfalls, planted in real stages: refused, or the first layer is named.

Each test scores the adapter once more with one fault, as from a careless edit or another library.
Faults planted only in evidence are in analysis/compare/test_conclusion.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import models
import pytest
import torch
from pipeline import comparing, run_fixture
from pipeline.run_fixture import RunFixture

from parity.competition.query import Query
from parity.pipeline import dag
from parity.pipeline.dataset import Dataset
from parity.pipeline.stage_cores import evaluate
from parity.retrieval.encoder import Encoder
from parity.retrieval.models import adapter
from parity.retrieval.tokenizer import Tokenizer
from parity.run import files, ledger
from parity.run.errors import BadConfig, BadData, Mismatch

Patch = pytest.MonkeyPatch
_FEW = 5  # validation rows that a careless loop keeps


def change_first_token(patch: Patch) -> None:
    """Change the first token of every text, as a slow tokenizer may."""
    real = Tokenizer.tokenize

    def tokenize(self: Tokenizer, texts: Sequence[str], limit: int) -> list[list[int]]:
        return [[ids[0] + 1, *ids[1:]] for ids in real(self, texts, limit)]

    patch.setattr(Tokenizer, "tokenize", tokenize)


def reorder_rows(patch: Patch) -> None:
    """Return the queries' vectors in another order, as two processes may."""
    real = Encoder.embed

    def embed(self: Encoder, sequences: Any, label: str = "encode", names: Any = ()) -> Any:
        vectors = real(self, sequences, label, names)
        return vectors[::-1].copy() if label == "encode the queries" else vectors

    patch.setattr(Encoder, "embed", embed)


def merge_into_four_bits(patch: Patch) -> None:
    """Merge the adapter into 4-bit weights, with the adapter's digest unchanged."""
    real = adapter.load

    def load(model: Any, folder: Any, base: Any, *, layers: int) -> Any:
        loaded, record = real(model, folder, base, layers=layers)
        for module in loaded.modules():
            if hasattr(module, "lora_B"):
                merged = module.base_layer.weight + module.get_delta_weight("default")
                step = merged.abs().max() / 8
                with torch.no_grad():
                    module.base_layer.weight.copy_((merged / step).round() * step)
                    module.lora_B["default"].weight.zero_()
        return loaded, record

    patch.setattr(adapter, "load", load)


FAULTS: dict[str, tuple[tuple[str, ...], Callable[[Patch], None] | None, str, str]] = {
    "C15: another template": (
        ("prompt.query={wrong} {question}",),
        None,
        "template",
        "prompt.query differs",
    ),
    "C18: another max length": (
        ("prompt.query_max_length=40",),
        None,
        "template",
        "prompt.query_max_length: A 96, B 40",
    ),
    "C19: another first token": ((), change_first_token, "tokens", "slow against fast tokenizer?"),
    "D21: merged into 4 bits": ((), merge_into_four_bits, "embeddings", "bound 0.99999"),
    "D27: quantized scoring": (
        ("encoder.quantize=4bit",),
        None,
        "precision",
        "float32/none, B float32/4bit",
    ),
    "G38: rows reordered": ((), reorder_rows, "embeddings", "in another order of rows"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_only_the_layer_of_a_planted_fault_is_named(
    predicted_run: RunFixture, name: str, monkeypatch: Patch
) -> None:
    overrides, plant, layer, message = FAULTS[name]
    if plant:
        plant(monkeypatch)
    code, result = comparing.compare_rescored(predicted_run, monkeypatch, *overrides)
    assert (code, result["layer"]) == (10, layer), result
    assert message in " | ".join(comparing.by_layer(result, "lines")[layer])
    assert "independent" not in comparing.by_layer(result, "role").values()


def test_b11_a_score_over_part_of_the_data_is_refused(
    predicted_run: RunFixture, monkeypatch: Patch
) -> None:
    def head(self: Dataset) -> list[Query]:
        return self._queries_of(self.split.valid)[:_FEW]

    monkeypatch.setattr(Dataset, "valid", property(head))
    with pytest.raises((BadData, Mismatch)):
        evaluate.evaluate(predicted_run.open())


def test_c14_a_backslash_n_of_two_characters_is_refused(small_run: RunFixture) -> None:
    with pytest.raises(BadConfig, match="holds a backslash and an n; write a real newline"):
        small_run.open(r"prompt.query={question}\n{wrong}")


def test_c20_tokens_added_to_a_base_are_another_base(predicted_run: RunFixture) -> None:
    """The tokens have embeddings, so only the changed base is refused."""
    grown = models.write(predicted_run.folder / "grown", "llama", vocab_size=300)
    tokenizer = models.tokenizer_of("llama")
    tokenizer.add_special_tokens(["<instruct>"])
    tokenizer.save(str(grown.folder / "tokenizer.json"))
    predicted_run.write_config(encoder={"base": str(grown.folder)})
    for stage in ("mine", "train"):
        run_fixture.rewrite_config(predicted_run.open(), stage)
    with pytest.raises(Mismatch, match="trained on another base than grown"):
        evaluate.evaluate(predicted_run.open())


def test_f33_the_order_of_the_corpus_file_changes_nothing_that_is_read(
    small_run: RunFixture,
) -> None:
    path = small_run.folder / "shuffled"
    path.mkdir()
    for source in small_run.source.iterdir():
        rows = run_fixture.read_rows(source)
        run_fixture.write_rows(path / source.name, rows[::-1] if "mapping" in source.name else rows)
    small_run.write_config("other", data={"source": str(path)})
    corpora = [
        (
            dag.folder(small_run.run_stages("prepare", name=name), "prepare") / "corpus.jsonl"
        ).read_bytes()
        for name in ("small", "other")
    ]
    assert corpora[0] == corpora[1]


def test_f36_no_loss_is_evidence_or_score(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    scores = files.read_json(dag.folder(run, "eval") / "scores.json")
    records = [str(scores), *(str(record) for record in ledger.read(run.workspace.ledger))]
    assert all("map@25" in record and "loss" not in record for record in records)
