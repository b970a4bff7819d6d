"""Faults planted in the stages of a tiny run with few-shot examples: named, or refused.

The run is scored once without and once with the fault, under the same names. `reconcile` names the
layer from the evidence alone, and only consequences besides.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from pipeline import comparing, run_fixture
from pipeline.run_fixture import RunFixture

from parity.competition.corpus import Corpus
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
def _icl(_empty_run: RunFixture, tmp_path_factory: pytest.TempPathFactory) -> RunFixture:
    small_run = replace(_empty_run, folder=tmp_path_factory.mktemp("icl"))
    small_run.write_config(prompt=PROMPT, training={"epochs": 1})
    with run_fixture.working_in(small_run):
        small_run.run_stages("prepare", "mine", "train", "eval")
    return small_run


@pytest.fixture
def icl(_icl: RunFixture, tmp_path: Path) -> Iterator[RunFixture]:
    """Work in a folder whose run has few-shot examples and was scored once."""
    with run_fixture.working_in_a_copy(_icl, tmp_path) as copy:
        yield copy


def show_own_answers(patch: Patch) -> None:
    """Show each query itself as an example, with its answer."""

    def show_answers(data: Dataset, _: Any, queries: Sequence[Any]) -> Any:
        labels = {query: min(data.qrels[query.query_id]) for query in queries}
        return {query.query_id: (Example(query, n, data.corpus[n]),) for query, n in labels.items()}

    patch.setattr(dataset, "shown", show_answers)


def redraw(patch: Patch) -> None:
    """Draw few-shot examples at random, under the name of the run's policy."""
    real = dataset.shown
    change = {"examples": "random", "example_seed": 5}
    patch.setattr(
        dataset,
        "shown",
        lambda data, prompt, queries: real(data, prompt.model_copy(update=change), queries),
    )


def carry_over(patch: Patch) -> None:
    """Append to the examples of the previous query, as a query with an unknown subject did."""
    real = dataset.shown

    def append_to_previous(data: Dataset, prompt: Any, queries: Sequence[Any]) -> Any:
        examples = real(data, prompt, queries)
        query_ids = list(examples)
        return {**examples, query_ids[-1]: (*examples[query_ids[-2]], *examples[query_ids[-1]])}

    patch.setattr(dataset, "shown", append_to_previous)


def escape_newline(patch: Patch) -> None:
    """Write a newline of the template as backslash and n, with the template's digest unchanged."""
    real = prompts.full_prompt

    def render(*words: Any) -> str:
        return real(*words).replace("\n<query>", "\\n<query>")

    patch.setattr(prompts, "full_prompt", render)


def change_version(patch: Patch, package: str) -> None:
    real = environment.version
    patch.setattr(environment, "version", lambda name: "9.9" if name == package else real(name))


def use_newer_tokenizers(patch: Patch) -> None:
    """Change the first token, as another version of the library may."""
    change_version(patch, "tokenizers")
    real = Tokenizer.tokenize

    def read(self: Tokenizer, texts: Sequence[str], limit: int) -> list[list[int]]:
        return [[(row[0] + 1) % 50, *row[1:]] for row in real(self, texts, limit)]

    patch.setattr(Tokenizer, "tokenize", read)


def drift_embeddings(patch: Patch) -> None:
    real = Encoder.embed

    def embed(self: Encoder, *words: Any) -> Any:
        vectors = real(self, *words)
        vectors = vectors + np.random.default_rng(0).normal(size=vectors.shape).astype("f4") * 0.05
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    patch.setattr(Encoder, "embed", embed)


def drift_image(patch: Patch) -> None:
    """Change torch's version, and the embeddings by more than rounding."""
    change_version(patch, "torch")
    drift_embeddings(patch)


def shadow_wheel(patch: Patch) -> None:
    """Import another wheel of this project with the same version."""
    patch.setattr(environment, "code", lambda: "f" * 64)
    drift_embeddings(patch)


def change_k(patch: Patch) -> None:
    """Report the metric of another depth under the key of 25."""
    real: Any = metrics.evaluate

    def evaluated(*words: Any, **options: Any) -> Scores:
        metric = words[-1]
        scores: Scores = real(*words[:-1], replace(metric, k=3), **options)
        return replace(scores, metric=metric)

    patch.setattr(metrics, "evaluate", evaluated)


def use_names_as_ids(patch: Patch) -> None:
    """Identify passages by name, so that of two ids with one name the second is lost."""
    real = dataset.load

    def loaded(*words: Any) -> Dataset:
        data = real(*words)
        first = min(data.corpus)
        texts = [*list(data.corpus.values())[:-1], data.corpus[first]]
        passages = dict(zip(data.corpus.ids, texts, strict=True))
        return replace(data, corpus=Corpus(passages))

    patch.setattr(dataset, "load", loaded)


PLANTED: dict[str, tuple[Callable[[Patch], None], str, str]] = {
    "answers shown": (show_own_answers, "examples", "their own question"),
    "another k as 25": (change_k, "metric", "one ranking, two scores"),
    "backslash-n in the text": (escape_newline, "texts", "B <backslash> (U+005C)"),
    "examples re-drawn": (redraw, "examples", "drawn again"),
    "a stale list of few-shot examples": (carry_over, "examples", "1 of "),
    "first token by another library": (use_newer_tokenizers, "tokens", "tokenizers: A "),
    "names for ids": (use_names_as_ids, "corpus", "A "),
    "another torch that drifts": (drift_image, "packages", "torch: A "),
    "a shadowed wheel": (shadow_wheel, "packages", "this project's source: A "),
}
"""Fault → function that plants it, first layer named, part of its message."""


@pytest.mark.parametrize("name", PLANTED)
def test_only_the_layer_of_a_fault_in_the_stages_is_named(
    name: str, icl: RunFixture, monkeypatch: Patch
) -> None:
    plant, layer, message = PLANTED[name]
    plant(monkeypatch)
    code, result = comparing.compare_rescored(icl, monkeypatch)
    assert (code, result["layer"]) == (10, layer), result
    assert message in " ".join(comparing.by_layer(result, "lines")[layer])
    roles = comparing.by_layer(result, "role")
    independent = {name for name, role in roles.items() if role == "independent"}
    assert independent <= (
        {"packages"} if plant is use_newer_tokenizers else set()
    )  # planted with it


def test_without_a_fault_the_score_is_the_same(icl: RunFixture, monkeypatch: Patch) -> None:
    code, result = comparing.compare_rescored(icl, monkeypatch)
    assert (code, result["result"]) == (0, "same")


# Faults that are refused


def test_c13_examples_that_no_query_carries_stop_the_score(
    icl: RunFixture, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(dataset, "shown", lambda *_: {})
    with pytest.raises(BadConfig, match=r"of \d+ queries have one"):
        evaluate.evaluate(icl.open())


def test_f33_embeddings_in_another_order_than_the_corpus_stop_the_evaluation(
    icl: RunFixture, monkeypatch: Patch
) -> None:
    real = retrieve.index

    def index(*words: Any) -> Any:
        index_ = real(*words)
        return retrieve.Index(np.roll(index_.vectors, 1, axis=0))

    monkeypatch.setattr(evaluation, "index", index)
    with pytest.raises(Mismatch, match=r"score of .* differs between eval and train"):
        evaluate.evaluate(icl.open())


def test_an_older_version_of_the_data_stops_every_stage(icl: RunFixture, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(icl.source, older)
    lines = (older / "train.csv").read_text().splitlines(keepends=True)
    (older / "train.csv").write_text("".join(lines[:-1]))
    with pytest.raises(StaleInput, match=r"train.csv has changed since"):
        evaluate.evaluate(icl.open(f"data.source={older}"))


def test_d25_another_base_stops_the_score(icl: RunFixture, tmp_path: Path) -> None:
    other = models.write(tmp_path / "other", "qwen2").folder
    with pytest.raises(Mismatch, match=r"adapter: trained on another base than other "):
        evaluate.evaluate(icl.open(f"encoder.base={other}"))
