"""Every planted fault is named as the first difference; honest pairs have no difference."""

import json
from dataclasses import replace
from typing import Any

import pytest
import tiny
from analysis.records import ARTIFACTS, PACKAGES, PASSAGES, POOL, PROMPT, Setup, measure

from parity.analysis.compare import conclusion, layer_values
from parity.analysis.compare.evidence_record import EvidenceRecord
from parity.competition import few_shot as shelf
from parity.competition.corpus import Corpus
from parity.competition.few_shot import Example
from parity.competition.query import PassageId, QueryId
from parity.run import layers

HONEST = Setup()
A = measure(HONEST)


def shown(**chosen: int) -> dict[QueryId, tuple[Example, ...]]:
    """Return few-shot examples by index in the pool; other rows show the first."""
    return {
        query.query_id: (POOL[chosen.get(query.query_id, 0) % len(POOL)],)
        for query in tiny.queries()
    }


def leaking() -> dict[QueryId, tuple[Example, ...]]:
    """Return examples that show each row of the pool its own question with its answer."""
    leaks = {example.query.query_id: (example,) for example in POOL}
    return {**shelf.shown(tiny.queries(), POOL, PROMPT), **leaks}


NINE, TEN, ELEVEN = map(PassageId, ("9", "10", "11"))
OTHER = Corpus({**PASSAGES, NINE: "Another sentence"})
RENAMED = Corpus({**PASSAGES, TEN: PASSAGES[ELEVEN]})
NEWER = {**PACKAGES, "transformers": "5.1.0", "tokenizers": "0.23.0"}

FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "A1, A3: another split": (
        {"split": "random-s0"},
        "split",
        "split A unseen-0.75-s0, B random-s0",
    ),
    "B6: wrong split file": ({"split": "v3", "trained": (10,)}, "split", "B v3"),
    "B7: contaminated adapter": ({"status": "contaminated"}, "lineage", "B was scored on rows"),
    "B8: lineage unknown": (
        {"status": "contaminated", "trained": ()},
        "lineage",
        "B was scored on rows",
    ),
    "B9: the answer in the prompt": ({"shown": leaking()}, "examples", "their own question"),
    "B10: hand-written few-shot examples": ({"shown": shown()}, "examples", "drawn again"),
    "B11: part of the data scored": ({"scored": 5}, "metric", "of 5 rows"),
    "B12: MAP@100 for MAP@25": ({"metric": 100}, "metric", "one ranking, two scores"),
    "C13: no few-shot examples although on": ({"shown": {}}, "examples", "no row has any"),
    "C14: literal backslash-n": ({"literal": True}, "template", ""),
    "C15: another template": (
        {"prompt": PROMPT.model_copy(update={"query": "{wrong}\n{question}"})},
        "template",
        "prompt.query differs",
    ),
    "C15: no instruction": (
        {"prompt": PROMPT.model_copy(update={"instruction": ""})},
        "template",
        "prompt.instruction differs",
    ),
    "C16: random few-shot examples re-drawn": (
        {"shown": shown(**{"10_B": 1})},
        "examples",
        "drawn again",
    ),
    "C17: stale few-shot example list": (
        {"shown": shown(**{"21_B": 2})},
        "examples",
        "of 11 probe rows",
    ),
    "C18: another max length": (
        {"prompt": PROMPT.model_copy(update={"query_max_length": 300})},
        "template",
        "A 400, B 300",
    ),
    "C19: slow against fast tokenizer": ({"slow": True}, "tokens", "slow against fast tokenizer?"),
    "C19: first token of another version": (
        {"slow": True, "packages": NEWER},
        "tokens",
        "tokenizers: A 0.22.2, B 0.23.0",
    ),
    "C20: tokens added to the tokenizer": ({"base": 4, "slow": True}, "base", "A "),
    "D21: merged into few bits": ({"adapter": 0, "base": 5}, "base", "a merged model?"),
    "D22: adapter not named": ({"adapter": 0}, "adapter", "none (base model)"),
    "D22: adapter not applied": (
        {"scale": 0.0},
        "embeddings",
        "B's embeddings are the base model's",
    ),
    "D22: adapter applied twice": ({"scale": 2.0}, "embeddings", "applied twice"),
    "D21: merged in part": ({"scale": 0.3}, "embeddings", "in part"),
    "D24: epoch folder swapped": ({"adapter": 2}, "adapter", "also that of small/round-0/epoch-2"),
    "D25: wrong base": ({"base": 3}, "base", "A "),
    "D27: quantized scoring": ({"bits": 4}, "precision", "float32/none, B float32/4bit"),
    "F33: corpus changed": ({"corpus": OTHER}, "corpus", "A "),
    "F33: corpus in another order": (
        {"shuffled": "corpus"},
        "ranking",
        "by more than the margin",
    ),
    "F34: names for ids": ({"corpus": RENAMED}, "corpus", "A "),
    "G38: rows reordered in parallel": (
        {"shuffled": "vectors", "processes": 2},
        "embeddings",
        "in another order of rows",
    ),
    "G38: submission reordered": (
        {"shuffled": "submission"},
        "submission",
        "the same answers under other query ids",
    ),
    "truncated submission": ({"rows": 7}, "submission", "A has 11 rows, B 7"),
    "too few ids a row": ({"width": 20}, "submission", "ids a row: A 25, B 20"),
    "wheel shadowing": (
        {"code": "d" * 64, "drift": 0.02},
        "packages",
        "this project's source: A cccccccccccc, B dddddddddddd",
    ),
    "kernel version mix-up": (
        {"kind": "kernel", "label": "test", "adapter": 2},
        "adapter",
        "also that of small/round-0/epoch-2",
    ),
    "image package drift": (
        {"packages": {**PACKAGES, "torch": "2.10.0"}, "drift": 0.02},
        "packages",
        "torch: A 2.9.0",
    ),
    "old dataset version mounted": ({"files": "version 0"}, "data", "A "),
}
EPOCHS = replace(
    ARTIFACTS, records=(measure(replace(HONEST, adapter=2, label="epoch-2")).evidence,)
)


def conclude(a: EvidenceRecord, b: EvidenceRecord) -> conclusion.Conclusion:
    return conclusion.conclude(a, b, ARTIFACTS)


def without_artifacts(record: EvidenceRecord) -> EvidenceRecord:
    return EvidenceRecord(record.evidence)


def test_a_measurement_equals_itself() -> None:
    result = conclude(A, measure(HONEST))
    assert (result.result, result.layer, result.bound) == ("same", "", None)
    assert {finding.state for finding in result.findings} == {"equal"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_the_first_difference(name: str) -> None:
    change, layer, words = FAULTS[name]
    b = measure(replace(HONEST, **change))
    for x, y in ((A, b), (b, A)):
        result = conclusion.conclude(x, y, EPOCHS)
        assert (result.result, result.layer) == ("different", layer), result.line
        lines = " | ".join(result.of(layer).lines)
        assert x is b or words in lines, lines
        roles = {
            finding.layer: finding.role for finding in result.findings if finding.state == "differs"
        }
        assert roles.pop(layer) == "first"
        assert set(roles.values()) <= {"consequence", "independent"}
        assert result.advice
        assert max(map(len, conclusion.text(result, x, y).splitlines())) <= 80


@pytest.mark.parametrize("name", FAULTS)
def test_later_differences_are_consequences_of_the_fault(name: str) -> None:
    """Independent differences are only those that were planted together."""
    change = FAULTS[name][0]
    result = conclusion.conclude(A, measure(replace(HONEST, **change)), EPOCHS)
    independent = {finding.layer for finding in result.findings if finding.role == "independent"}
    planted = {"trained": "lineage", "packages": "packages", "adapter": "adapter"}
    assert independent <= {planted[key] for key in change if key in planted}, independent


HONEST_PAIRS: dict[str, tuple[dict[str, Any], str]] = {
    "another hash seed": ({}, "same"),
    "another bootstrap seed": ({}, "same"),
    "two processes, same bytes": ({"processes": 2}, "same"),
    "four threads, same bytes": ({"threads": "4"}, "same"),
    "another token budget": ({"budget": 256, "drift": 1e-7}, "noise"),
    "a tiny token budget": ({"budget": 64, "drift": 3e-7}, "noise"),
    "two processes, other sums": ({"processes": 2, "drift": 1e-7}, "noise"),
    "eight threads, other sums": ({"threads": "8", "drift": 2e-7}, "noise"),
    "threads and budget": ({"threads": "2", "budget": 1024, "drift": 1e-6}, "noise"),
    "bf16": ({"precision": "bfloat16", "drift": 3e-3}, "noise"),
    "fp16": ({"precision": "float16", "drift": 4e-4}, "noise"),
    "a GPU": ({"device": "cuda", "drift": 1e-6}, "noise"),
    "a GPU in bf16": ({"device": "cuda", "precision": "bfloat16", "drift": 4e-3}, "noise"),
    "a GPU in fp16": ({"device": "cuda", "precision": "float16", "drift": 5e-4}, "noise"),
    "a GPU, another budget": ({"device": "cuda", "budget": 4096, "drift": 3e-6}, "noise"),
    "two GPUs": ({"device": "cuda", "processes": 2, "drift": 2e-6}, "noise"),
    "another torch": ({"packages": {**PACKAGES, "torch": "2.10.0"}, "drift": 1e-6}, "noise"),
    "another torch, same bytes": ({"packages": {**PACKAGES, "torch": "2.10.0"}}, "same"),
    "another pandas": ({"packages": {**PACKAGES, "pandas": "2.2.0"}}, "same"),
    "newer libraries, same bytes": ({"packages": NEWER}, "same"),
    "Kaggle's two T4": (
        {
            "kind": "kernel",
            "label": "test",
            "device": "cuda",
            "precision": "float16",
            "processes": 2,
            "packages": {**PACKAGES, "torch": "2.10.0"},
            "drift": 5e-3,
        },
        "noise",
    ),
    "one in the kernel": ({"kind": "kernel", "label": "test"}, "same"),
    "one in the image": ({"kind": "image", "label": "test", "drift": 1e-6}, "noise"),
}


@pytest.mark.parametrize("name", HONEST_PAIRS)
def test_an_honest_pair_is_the_same_or_within_noise(name: str) -> None:
    change, expected = HONEST_PAIRS[name]
    b = measure(replace(HONEST, **change))
    for x, y in ((A, b), (b, A)):
        result = conclude(x, y)
        assert result.layer == "", result.line
        assert result.result == {"same": "same", "noise": "same within numeric noise"}[expected]
        assert (result.bound is None) == (expected == "same")
        harmless = {finding.layer for finding in result.findings if finding.state == "near"}
        assert harmless >= {layer for layer in ("precision", "device") if layer in change}


def test_a_drift_beyond_the_bound_is_not_noise() -> None:
    for precision, drift in (("float32", 2e-3), ("float16", 2e-2), ("bfloat16", 6e-2)):
        result = conclude(A, measure(replace(HONEST, precision=precision, drift=drift)))
        layer = "embeddings" if precision == "float32" else "precision"
        assert (result.result, result.layer) == ("different", layer)


def test_a_literal_backslash_is_located_and_text_shown_only_on_request() -> None:
    b = measure(replace(HONEST, literal=True))
    layers_b = {**b.evidence.layers, "template": A.evidence.layers["template"]}
    b = replace(b, evidence=replace(b.evidence, layers=layers_b))
    result = conclude(A, b)
    assert result.layer == "texts"
    lines = result.of("texts").lines
    assert lines[0] == "11 of 11 probe rows; first 10_B"
    assert "A has <newline> (U+000A), B <backslash> (U+005C)" in lines[1]
    assert len(lines) == 2
    result = conclusion.conclude(A, b, replace(ARTIFACTS, with_text=True))
    text_a, text_b = result.of("texts").lines[2:]
    assert ">><newline><query>" in text_a
    assert ">><backslash>n<query>" in text_b


def test_the_first_token_is_shown_with_both_decodings() -> None:
    b = measure(replace(HONEST, slow=True))
    result = conclusion.conclude(A, b, replace(ARTIFACTS, pieces={60: "<", 300: "▁<"}))
    assert "its token 0: A 60 '<', B 300 '▁<'" in result.of("tokens").lines


def test_digests_alone_name_the_layer() -> None:
    for name, (change, layer, _) in FAULTS.items():
        if layer in ("embeddings", "precision", "ranking"):  # these need embeddings
            continue
        b = measure(replace(HONEST, **change))
        result = conclude(without_artifacts(A), without_artifacts(b))
        assert (result.result, result.layer) == ("different", layer), name


def public(number: float) -> EvidenceRecord:
    """Return the leaderboard score of what the kernel ran."""
    kernel = measure(replace(HONEST, kind="public", label="test")).evidence
    facts = {key: value for key, value in kernel.facts.items() if key != "valid"}
    return EvidenceRecord(replace(kernel, facts=facts, score={"map@25": number}))


def test_a_public_score_is_explained_if_all_layers_are_equal() -> None:
    value = layer_values.value(A.evidence.score)
    assert value is not None
    for a, b in ((A, public(value)), (public(value + 0.01), A)):
        result = conclude(a, b)
        assert (result.result, result.layer) == ("same", "")
        assert result.line == "same; scores: within sampling error of the CV"
    result = conclude(A, public(0.99))
    assert (result.result, result.layer) == ("different", "score")
    assert result.of("score").lines[-1] == "explained neither by sampling nor by the unseen share"


def test_a_public_score_of_another_adapter_is_not_sampling_error() -> None:
    b = public(0.5)
    b = replace(b, evidence=replace(b.evidence, layers={**b.evidence.layers, "adapter": "x"}))
    assert conclude(A, b).layer == "adapter"


def test_a_conclusion_is_plain_json() -> None:
    result = conclude(A, measure(replace(HONEST, adapter=2)))
    values = result.as_json()
    assert json.loads(json.dumps(values)) == values
    assert (values["result"], values["layer"]) == ("different", "adapter")
    assert [finding["layer"] for finding in values["layers"]] == list(layers.COMPARED)


def test_a_difference_has_the_advice_and_the_command_of_its_layer() -> None:
    result = conclude(A, measure(replace(HONEST, base=3)))
    layer = layers.BY_NAME["base"]
    assert (result.advice, result.fix) == (layer.advice, layer.fix)
    assert result.line.startswith("first difference: base (A ")


@pytest.mark.parametrize(("adapter", "expected"), [(8, "no difference shown"), (2, "B is better")])
def test_a4_a_better_adapter_is_reported_with_the_layer(adapter: int, expected: str) -> None:
    result = conclude(A, measure(replace(HONEST, adapter=adapter)))
    assert result.layer == "adapter"
    score = result.of("score")
    assert (score.state, score.role) == ("differs", "consequence")
    assert score.lines[-1].endswith(expected)


def test_an_unknown_layer_is_not_a_difference() -> None:
    old = replace(A.evidence, facts={}, schema=1, layers={"texts": "x"})
    result = conclude(EvidenceRecord(old), A)
    states = {finding.state for finding in result.findings if finding.layer != "texts"}
    assert states >= {"unknown"}
    assert result.of("corpus").state == "unknown"
