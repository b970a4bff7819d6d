"""Faults of the list of pitfalls, planted in what really runs: refused, or the first layer named.

Each scores the bench's adapter once more, with one thing gone wrong as a careless edit or another
library would have it. What is planted in evidence alone is in analysis/compare/test_conclusion.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import models
import pytest
import torch
from pipeline import comparing
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench

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
_FEW = 5  # valid rows that a careless loop keeps


def first_token(patch: Patch) -> None:
    """Let the first token of every text be another, as of a slow tokenizer."""
    real = Tokenizer.tokenize

    def otherwise(self: Tokenizer, texts: Sequence[str], limit: int) -> list[list[int]]:
        return [[ids[0] + 1, *ids[1:]] for ids in real(self, texts, limit)]

    patch.setattr(Tokenizer, "tokenize", otherwise)


def rows_reordered(patch: Patch) -> None:
    """Let the queries' vectors come back in another order, as from two processes."""
    real = Encoder.embed

    def otherwise(self: Encoder, sequences: Any, label: str = "encode") -> Any:
        found = real(self, sequences, label)
        return found[::-1].copy() if label == "encode the queries" else found

    patch.setattr(Encoder, "embed", otherwise)


def merged_into_four_bits(patch: Patch) -> None:
    """Let base and adapter be one weight of 16 values, under the adapter's own name."""
    real = adapter.load

    def otherwise(model: Any, folder: Any, base: Any, *, layers: int) -> Any:
        made, record = real(model, folder, base, layers=layers)
        for module in made.modules():
            if hasattr(module, "lora_B"):
                whole = module.base_layer.weight + module.get_delta_weight("default")
                step = whole.abs().max() / 8
                with torch.no_grad():
                    module.base_layer.weight.copy_((whole / step).round() * step)
                    module.lora_B["default"].weight.zero_()
        return made, record

    patch.setattr(adapter, "load", otherwise)


NAMED: dict[str, tuple[tuple[str, ...], Callable[[Patch], None] | None, str, str]] = {
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
    "C19: another first token": ((), first_token, "tokens", "slow against fast tokenizer?"),
    "D21: merged into 4 bits": ((), merged_into_four_bits, "embeddings", "bound 0.99999"),
    "D27: quantized scoring": (
        ("encoder.quantize=4bit",),
        None,
        "precision",
        "float32/none, B float32/4bit",
    ),
    "G38: rows reordered": ((), rows_reordered, "embeddings", "in another order of rows"),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_fault_that_ran_is_named_and_nothing_else(
    made: Bench, name: str, monkeypatch: Patch
) -> None:
    sets, plant, layer, said = NAMED[name]
    if plant:
        plant(monkeypatch)
    code, found = comparing.again(made, monkeypatch, *sets)
    assert (code, found["layer"]) == (10, layer), found
    assert said in " | ".join(comparing.layers(found, "told")[layer])
    assert "independent" not in comparing.layers(found, "role").values()


def test_b11_a_score_over_part_of_the_data_is_refused(made: Bench, monkeypatch: Patch) -> None:
    def head(self: Dataset) -> list[Query]:
        return self._side(self.split.valid)[:_FEW]

    monkeypatch.setattr(Dataset, "valid", property(head))
    with pytest.raises((BadData, Mismatch)):
        evaluate.evaluate(made.run())


def test_c14_a_backslash_n_of_two_characters_is_refused(bench: Bench) -> None:
    with pytest.raises(BadConfig, match="holds a backslash and an n; write a real newline"):
        bench.run(r"prompt.query={question}\n{wrong}")


def test_c20_tokens_added_to_a_base_are_another_base(made: Bench) -> None:
    """With embeddings for them nothing is refused for want of those; the adapter's base is."""
    grown = models.write(made.folder / "grown", "llama", vocab_size=300)
    tokenizer = models.tokenizer_of("llama")
    tokenizer.add_special_tokens(["<instruct>"])
    tokenizer.save(str(grown.folder / "tokenizer.json"))
    made.write(encoder={"base": str(grown.folder)})
    for stage in ("mine", "train"):
        benches.rewrite_config(made.run(), stage)
    with pytest.raises(Mismatch, match="trained on another base than grown"):
        evaluate.evaluate(made.run())


def test_f33_the_order_of_the_corpus_file_changes_nothing_that_is_read(bench: Bench) -> None:
    path = bench.folder / "shuffled"
    path.mkdir()
    for one in bench.source.iterdir():
        rows = benches.read_rows(one)
        benches.write_rows(path / one.name, rows[::-1] if "mapping" in one.name else rows)
    bench.write("other", data={"source": str(path)})
    there = [
        (dag.folder(bench.make("prepare", name=name), "prepare") / "corpus.jsonl").read_bytes()
        for name in ("small", "other")
    ]
    assert there[0] == there[1]


def test_f36_no_loss_is_evidence_or_score(made: Bench) -> None:
    run = made.run()
    scores = files.read_json(dag.folder(run, "eval") / "scores.json")
    told = [str(scores), *(str(one) for one in ledger.read(run.workspace.ledger))]
    assert all("map@25" in one and "loss" not in one for one in told)
