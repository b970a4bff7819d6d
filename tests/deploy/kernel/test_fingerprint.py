"""Facts of evidence distinguish rows by digest and hold no text."""

import json

import numpy as np
import tiny

from parity.competition import few_shot as shelf
from parity.competition.corpus import Corpus
from parity.competition.query import UnitId
from parity.competition.splits.split import Split
from parity.deploy.kernel import fingerprint
from parity.run.config.prompt import PromptConfig


def units(*names: str) -> tuple[UnitId, ...]:
    """Return units of these names."""
    return tuple(map(UnitId, names))


PROMPT = PromptConfig(examples="question", example_count=1)
SPLIT = Split("small", "random", 0, units("10", "12", "20", "30"), units("11", "21"), frozenset())
POOL = shelf.pool(tiny.queries(), tiny.qrels(), tiny.corpus(), SPLIT)
QUERIES = tiny.queries()[:2]
PROBED = fingerprint.ProbeTexts(
    query_ids=[query.query_id for query in QUERIES],
    texts=[query.identity for query in QUERIES],
    tokens=[[5, 6, 7], [5, 6]],
    shown=shelf.shown(QUERIES, POOL, PROMPT),
    vectors=np.eye(2, 4, dtype=np.float32),
    passages=np.eye(3, 4, dtype=np.float32),
)
SPEED = {"budget": 512, "processes": 2, "precision": "float32/none", "seconds": 1.5}


def test_every_row_of_the_probe_has_a_digest_of_text_and_tokens_and_its_examples() -> None:
    result = fingerprint.environment_fingerprint(PROMPT, tiny.corpus(), PROBED, SPEED, 512)
    first, second = result["probe"]
    assert [first["query_id"], second["query_id"]] == ["10_B", "10_C"]
    assert first["text"] == second["text"] == fingerprint.text_mark(QUERIES[0].identity)
    assert first["tokens"] != second["tokens"]
    assert (first["length"], second["length"]) == (3, 2)
    assert [len(row["examples"]) for row in (first, second)] == [1, 1]
    assert result["ran"] == {"budget": 512, "processes": 2, "precision": "float32/none"}
    cached = fingerprint.environment_fingerprint(
        PROMPT, tiny.corpus(), PROBED, {**SPEED, "budget": 0}, 512
    )
    assert cached["ran"] == result["ran"]  # cached embeddings use the budget of the run file
    assert result["vectors"]["queries"] != result["vectors"]["passages"]
    assert result["prompt"]["query_max_length"] == PROMPT.query_max_length


def test_facts_are_plain_and_hold_no_text() -> None:
    result = json.dumps(
        fingerprint.environment_fingerprint(PROMPT, tiny.corpus(), PROBED, SPEED, 512),
        ensure_ascii=False,
    )
    texts = [text for query in QUERIES for text in query.fields.values() if len(text) > 3]
    assert not [text for text in (*texts, *tiny.corpus().values(), PROMPT.query) if text in result]


def test_the_corpus_digest_depends_on_ids_texts_and_order() -> None:
    passages = dict(zip(tiny.corpus().ids, tiny.corpus().values(), strict=True))
    changed = {**passages, next(iter(passages)): "another"}
    turned = dict(reversed(passages.items()))
    digests = {
        fingerprint.environment_fingerprint(PROMPT, Corpus(item), PROBED, SPEED, 512)["corpus"]
        for item in (passages, changed, turned)
    }
    assert len(digests) == 3
