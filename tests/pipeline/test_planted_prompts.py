"""Faults planted in the stages of a tiny run that shows few-shot examples: named, or refused.

The run is scored once as it is and once with the fault, under the same names; `reconcile` names the
layer from the evidence alone, and nothing else but what follows from it.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from pipeline import comparing
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench

from parity.competition.few_shot import Example
from parity.competition.scoring import metrics
from parity.competition.scoring.metrics import Scores
from parity.pipeline import dataset, evaluation
from parity.pipeline.dataset import Dataset
from parity.pipeline.stage_cores import evaluate
from parity.retrieval import prompts, retrieve
from parity.retrieval.encoder import Encoder
from parity.retrieval.tokenizer import Tokenizer
from parity.run import environment
from parity.run.errors import BadConfig, Mismatch, StaleInput

PROMPT = {
    "format": "icl",
    "instruction": "Name the mistake.",
    "examples": "question",
    "example_count": 1,
    "query_max_length": 320,
}
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="session")
def _icl(_blank: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = replace(_blank, folder=tmp_path_factory.mktemp("icl"))
    bench.write(prompt=PROMPT, training={"epochs": 1})
    with benches.working_in(bench):
        bench.make("prepare", "mine", "train", "eval")
    return bench


@pytest.fixture
def icl(_icl: Bench, tmp_path: Path) -> Iterator[Bench]:
    """Work in a folder whose run shows few-shot examples and was scored once."""
    with benches.working_in_a_copy(_icl, tmp_path) as mine:
        yield mine


def answers(patch: Patch) -> None:
    """Every query is shown itself, answer and all."""

    def own(known: Dataset, _: Any, queries: Sequence[Any]) -> Any:
        right = {query: min(known.qrels[query.query_id]) for query in queries}
        return {one.query_id: (Example(one, n, known.corpus[n]),) for one, n in right.items()}

    patch.setattr(dataset, "shown", own)


def redrawn(patch: Patch) -> None:
    """Few-shot examples are drawn at random, under the name of the run's policy."""
    real = dataset.shown
    change = {"examples": "random", "example_seed": 5}
    patch.setattr(
        dataset,
        "shown",
        lambda known, one, asked: real(known, one.model_copy(update=change), asked),
    )


def stale(patch: Patch) -> None:
    """A query adds to the list of the one before it, as one whose subject the pool lacks did."""
    real = dataset.shown

    def kept(known: Dataset, prompt: Any, queries: Sequence[Any]) -> Any:
        found = real(known, prompt, queries)
        names = list(found)
        return {**found, names[-1]: (*found[names[-2]], *found[names[-1]])}

    patch.setattr(dataset, "shown", kept)


def literal(patch: Patch) -> None:
    """A newline of the template is a backslash and an n, under the template's own digest."""
    real = prompts.whole

    def told(*words: Any) -> str:
        return real(*words).replace("\n<query>", "\\n<query>")

    patch.setattr(prompts, "whole", told)


def another_version(patch: Patch, package: str) -> None:
    real = environment.version
    patch.setattr(environment, "version", lambda name: "9.9" if name == package else real(name))


def newer(patch: Patch) -> None:
    """The first token is another, by another version of the library."""
    another_version(patch, "tokenizers")
    real = Tokenizer.tokenize

    def read(self: Tokenizer, texts: Sequence[str], limit: int) -> list[list[int]]:
        return [[(row[0] + 1) % 50, *row[1:]] for row in real(self, texts, limit)]

    patch.setattr(Tokenizer, "tokenize", read)


def drift(patch: Patch) -> None:
    real = Encoder.embed

    def embed(self: Encoder, *words: Any) -> Any:
        found = real(self, *words)
        found = found + np.random.default_rng(0).normal(size=found.shape).astype("f4") * 0.05
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    patch.setattr(Encoder, "embed", embed)


def drifted_image(patch: Patch) -> None:
    """Another torch, whose embeddings lie further off than rounding."""
    another_version(patch, "torch")
    drift(patch)


def shadowed(patch: Patch) -> None:
    """Another wheel of this project lies before the meant one: its version is the same."""
    patch.setattr(environment, "code", lambda: "f" * 64)
    drift(patch)


def another_k(patch: Patch) -> None:
    """The number of another depth stands under the key of 25."""
    real = metrics.evaluate

    def evaluated(*words: Any, **more: Any) -> Scores:
        return replace(real(*words, **{**more, "k": 3}), k=more["k"])

    patch.setattr(metrics, "evaluate", evaluated)


def names_for_ids(patch: Patch) -> None:
    """A set of names holds each once: of two ids with one name the second is lost."""
    real = dataset.load

    def loaded(run: Any) -> Dataset:
        found = real(run)
        first, *_, last = sorted(found.corpus)
        return replace(found, corpus={**found.corpus, last: found.corpus[first]})

    patch.setattr(dataset, "load", loaded)


PLANTED: dict[str, tuple[Callable[[Patch], None], str, str]] = {
    "answers shown": (answers, "examples", "their own question"),
    "another k as 25": (another_k, "metric", "one ranking, two scores"),
    "backslash-n in the text": (literal, "texts", "B <backslash> (U+005C)"),
    "examples re-drawn": (redrawn, "examples", "drawn anew"),
    "a stale list of few-shot examples": (stale, "examples", "1 of "),
    "first token by another library": (newer, "tokens", "tokenizers: A "),
    "names for ids": (names_for_ids, "corpus", "A "),
    "another torch that drifts": (drifted_image, "packages", "torch: A "),
    "a shadowed wheel": (shadowed, "packages", "this project's source: A "),
}
"""Fault → what plants it, the layer that is named, a part of what is told."""


@pytest.mark.parametrize("name", PLANTED)
def test_a_fault_in_the_stages_is_named_and_nothing_else(
    name: str, icl: Bench, monkeypatch: Patch
) -> None:
    plant, layer, told = PLANTED[name]
    plant(monkeypatch)
    code, found = comparing.again(icl, monkeypatch)
    assert (code, found["layer"]) == (10, layer), found
    assert told in " ".join(comparing.layers(found, "told")[layer])
    roles = comparing.layers(found, "role")
    apart = {name for name, role in roles.items() if role == "independent"}
    assert apart <= ({"packages"} if plant is newer else set())  # which was planted with it


def test_scored_again_without_a_fault_it_is_the_same(icl: Bench, monkeypatch: Patch) -> None:
    code, found = comparing.again(icl, monkeypatch)
    assert (code, found["verdict"]) == (0, "same")


# What the tool refuses


def test_c13_examples_switched_on_that_no_query_carries_stop_the_score(
    icl: Bench, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(dataset, "shown", lambda *_: {})
    with pytest.raises(BadConfig, match=r"none of .* queries carries one"):
        evaluate.evaluate(icl.run())


def test_f33_a_corpus_in_another_order_than_its_ids_stops_the_search(
    icl: Bench, monkeypatch: Patch
) -> None:
    real = retrieve.index

    def index(*words: Any) -> Any:
        found = real(*words)
        return retrieve.Index([*found.ids[1:], found.ids[0]], found.vectors)

    monkeypatch.setattr(evaluation, "index", index)
    with pytest.raises(Mismatch, match=r"ascending ids"):
        evaluate.evaluate(icl.run())


def test_an_older_version_of_the_data_stops_every_stage(icl: Bench, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(icl.source, older)
    lines = (older / "train.csv").read_text().splitlines(keepends=True)
    (older / "train.csv").write_text("".join(lines[:-1]))
    with pytest.raises(StaleInput, match=r"train.csv is not the file it was made from"):
        evaluate.evaluate(icl.run(f"data.source={older}"))


def test_d25_another_base_stops_the_score(icl: Bench, tmp_path: Path) -> None:
    other = models.write(tmp_path / "other", "qwen2").folder
    with pytest.raises(StaleInput, match=r"encoder.base was"):
        evaluate.evaluate(icl.run(f"encoder.base={other}"))
