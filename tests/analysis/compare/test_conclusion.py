"""Faults of the list of pitfalls, planted one at a time, are named; honest pairs are let be."""

import json
from dataclasses import replace
from typing import Any

import pytest
import tiny
from analysis.records import CORPUS, KNOWN, PACKAGES, POOL, PROMPT, Setup, measure

from parity.analysis.compare import conclusion, layer_values
from parity.analysis.compare.evidence_record import EvidenceRecord
from parity.competition import few_shot as shelf
from parity.competition.few_shot import Example
from parity.competition.query import MisconceptionId, QueryId

HONEST = Setup()
A = measure(HONEST)


def shown(**chosen: int) -> dict[QueryId, tuple[Example, ...]]:
    """Return few-shot examples by place in the pool; rows that are not named carry the first."""
    return {
        query.query_id: (POOL[chosen.get(query.query_id, 0) % len(POOL)],)
        for query in tiny.queries()
    }


def own() -> dict[QueryId, tuple[Example, ...]]:
    """Return for each row of the pool itself, answer and all."""
    mine = {one.query.query_id: (one,) for one in POOL}
    return {**shelf.shown(tiny.queries(), POOL, PROMPT), **mine}


OTHER = {**CORPUS, MisconceptionId(9): "Another sentence"}
RENAMED = {**CORPUS, MisconceptionId(10): CORPUS[MisconceptionId(11)]}
NEWER = {**PACKAGES, "transformers": "5.1.0", "tokenizers": "0.23.0"}

FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "A1, A3: another split": (
        {"split": "random-s0"},
        "split",
        "named unseen-0.75-s0 and random-s0",
    ),
    "B6: wrong split file": ({"split": "v3", "trained": (10,)}, "split", "and v3"),
    "B7: contaminated adapter": ({"status": "contaminated"}, "lineage", "B was scored on rows"),
    "B8: lineage unknown": (
        {"status": "contaminated", "trained": ()},
        "lineage",
        "B was scored on rows",
    ),
    "B9: the answer in the prompt": ({"shown": own()}, "examples", "their own question"),
    "B10: hand-written few-shot examples": ({"shown": shown()}, "examples", "drawn anew"),
    "B11: part of the data scored": ({"scored": 5}, "metric", "of 5 rows"),
    "B12: MAP@100 for MAP@25": ({"metric": 100}, "metric", "one ranking, two scores"),
    "C13: no few-shot examples although on": ({"shown": {}}, "examples", "no row carries one"),
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
        "drawn anew",
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
    "D22: adapter not named": ({"adapter": 0}, "adapter", "none: the bare base"),
    "D22: adapter not applied": ({"scale": 0.0}, "embeddings", "B's are those of the bare base"),
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
EPOCHS = replace(KNOWN, records=(measure(replace(HONEST, adapter=2, label="epoch-2")).evidence,))


def test_a_measurement_and_itself_are_the_same() -> None:
    found = conclusion.conclude(A, measure(HONEST), KNOWN)
    assert (found.said, found.layer, found.bound) == ("same", "", None)
    assert {finding.state for finding in found.findings} == {"equal"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_the_first_layer_named(name: str) -> None:
    change, layer, told = FAULTS[name]
    b = measure(replace(HONEST, **change))
    for one, other, mirror in ((A, b, False), (b, A, True)):
        found = conclusion.conclude(one, other, EPOCHS)
        assert (found.said, found.layer) == ("different", layer), found.line
        lines = " | ".join(found.of(layer).told)
        assert mirror or told in lines, lines
        roles = {
            finding.layer: finding.role for finding in found.findings if finding.state == "differs"
        }
        assert roles.pop(layer) == "first"
        assert set(roles.values()) <= {"consequence", "independent"}
        assert found.next
        assert max(map(len, conclusion.text(found, one, other).splitlines())) <= 80


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_else_is_blamed_beside_a_fault(name: str) -> None:
    """What differs later is a consequence, but for what was planted together with it."""
    change = FAULTS[name][0]
    found = conclusion.conclude(A, measure(replace(HONEST, **change)), EPOCHS)
    apart = {finding.layer for finding in found.findings if finding.role == "independent"}
    planted = {"trained": "lineage", "packages": "packages", "adapter": "adapter"}
    assert apart <= {planted[name] for name in change if name in planted}, apart


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
    change, said = HONEST_PAIRS[name]
    b = measure(replace(HONEST, **change))
    for one, other in ((A, b), (b, A)):
        found = conclusion.conclude(one, other, KNOWN)
        assert found.layer == "", found.line
        assert found.said == {"same": "same", "noise": "same within numeric noise"}[said]
        assert (found.bound is None) == (said == "same")
        harmless = {finding.layer for finding in found.findings if finding.state == "near"}
        assert harmless >= {name for name in ("precision", "device") if name in change}


def test_what_is_beyond_the_bound_is_no_noise() -> None:
    for precision, drift in (("float32", 2e-3), ("float16", 2e-2), ("bfloat16", 6e-2)):
        b = measure(replace(HONEST, precision=precision, drift=drift))
        found = conclusion.conclude(A, b, KNOWN)
        wanted = "embeddings" if precision == "float32" else "precision"
        assert (found.said, found.layer) == ("different", wanted)


def test_a_literal_backslash_is_shown_where_it_stands_and_text_only_when_asked() -> None:
    b = measure(replace(HONEST, literal=True))
    alike = replace(
        b.evidence, layers={**b.evidence.layers, "template": A.evidence.layers["template"]}
    )
    found = conclusion.conclude(A, replace(b, evidence=alike), KNOWN)
    assert found.layer == "texts"
    told = found.of("texts").told
    assert told[0] == "11 of 11 probe rows; first 10_B"
    assert "A has <newline> (U+000A), B <backslash> (U+005C)" in told[1]
    assert len(told) == 2
    open_ = conclusion.conclude(A, replace(b, evidence=alike), replace(KNOWN, with_text=True))
    lines = open_.of("texts").told[2:]
    assert [">><newline><query>" in lines[0], ">><backslash>n<query>" in lines[1]] == [True, True]


def test_the_first_token_is_told_with_both_decodings() -> None:
    b = measure(replace(HONEST, slow=True))
    found = conclusion.conclude(A, b, replace(KNOWN, pieces={60: "<", 300: "▁<"}))
    assert "token 0 of it: A 60 '<', B 300 '▁<'" in found.of("tokens").told


def test_without_artifacts_digests_alone_name_the_layer() -> None:
    for name, (change, layer, _) in FAULTS.items():
        if layer in ("embeddings", "precision", "ranking"):  # which want what was measured
            continue
        b = measure(replace(HONEST, **change))
        found = conclusion.conclude(EvidenceRecord(A.evidence), EvidenceRecord(b.evidence), KNOWN)
        assert (found.said, found.layer) == ("different", layer), name


def public(number: float) -> EvidenceRecord:
    """Return what the leaderboard says of what the kernel ran."""
    kernel = measure(replace(HONEST, kind="public", label="test")).evidence
    facts = {name: value for name, value in kernel.facts.items() if name != "valid"}
    return EvidenceRecord(replace(kernel, facts=facts, score={"map@25": number}))


def test_a_public_score_is_weighed_where_every_layer_is_equal() -> None:
    value = layer_values.value(A.evidence.score)
    assert value is not None
    for one, other in ((A, public(value)), (public(value + 0.01), A)):
        found = conclusion.conclude(one, other, KNOWN)
        assert (found.said, found.layer) == ("same", "")
        assert found.line == "same; scores: within sampling error of the CV"
    found = conclusion.conclude(A, public(0.99), KNOWN)
    assert (found.said, found.layer) == ("different", "score")
    assert found.of("score").told[-1] == "explained neither by sampling nor by the unseen share"


def test_a_public_score_of_another_adapter_is_no_matter_of_sampling() -> None:
    b = public(0.5)
    b = replace(b, evidence=replace(b.evidence, layers={**b.evidence.layers, "adapter": "x"}))
    assert conclusion.conclude(A, b, KNOWN).layer == "adapter"


def test_a_verdict_is_plain_values() -> None:
    b = measure(replace(HONEST, adapter=2))
    found = conclusion.conclude(A, b, KNOWN).as_json()
    assert json.loads(json.dumps(found)) == found
    assert (found["verdict"], found["layer"]) == ("different", "adapter")
    assert [one["layer"] for one in found["layers"]] == list(layer_values.ORDER)


@pytest.mark.parametrize(("adapter", "judged"), [(8, "no difference shown"), (2, "B is better")])
def test_a4_whether_another_adapter_is_better_is_told_beside_the_layer(
    adapter: int, judged: str
) -> None:
    found = conclusion.conclude(A, measure(replace(HONEST, adapter=adapter)), KNOWN)
    assert found.layer == "adapter"
    score = found.of("score")
    assert (score.state, score.role) == ("differs", "consequence")
    assert score.told[-1].endswith(judged)


def test_what_nobody_knows_is_not_called_different() -> None:
    old = replace(A.evidence, facts={}, schema=1, layers={"texts": "x"})
    found = conclusion.conclude(EvidenceRecord(old), A, KNOWN)
    assert {finding.state for finding in found.findings if finding.layer != "texts"} >= {"unknown"}
    assert found.of("corpus").state == "unknown"


def test_every_layer_has_its_next_command() -> None:
    assert set(conclusion._NEXT) == set(layer_values.ORDER)
