"""Facts tell rows apart by digest, and hold no text."""

import json

import numpy as np
import tiny

from parity.competition import few_shot as shelf
from parity.competition.splits.split import Split
from parity.deploy.kernel import fingerprint
from parity.run.config.run_file import PromptConfig

PROMPT = PromptConfig(examples="question", example_count=1)
SPLIT = Split("small", "random", 0, (10, 12, 20, 30), (11, 21), frozenset())
POOL = shelf.pool(tiny.queries(), tiny.qrels(), tiny.corpus(), SPLIT)
QUERIES = tiny.queries()[:2]
PROBED = fingerprint.ProbeTexts(
    query_ids=[query.query_id for query in QUERIES],
    texts=[query.question for query in QUERIES],
    tokens=[[5, 6, 7], [5, 6]],
    shown=shelf.shown(QUERIES, POOL, PROMPT),
    vectors=np.eye(2, 4, dtype=np.float32),
    passages=np.eye(3, 4, dtype=np.float32),
)
SPEED = {"budget": 512, "processes": 2, "precision": "float32/none", "seconds": 1.5}


def test_every_row_of_the_probe_has_a_digest_of_text_and_tokens_and_its_examples() -> None:
    found = fingerprint.environment_fingerprint(PROMPT, tiny.corpus(), PROBED, SPEED, 512)
    first, second = found["probe"]
    assert [first["query_id"], second["query_id"]] == ["10_B", "10_C"]
    assert first["text"] == second["text"] == fingerprint.text_mark(QUERIES[0].question)
    assert first["tokens"] != second["tokens"]
    assert (first["length"], second["length"]) == (3, 2)
    assert [len(row["examples"]) for row in (first, second)] == [1, 1]
    assert found["ran"] == {"budget": 512, "processes": 2, "precision": "float32/none"}
    kept = fingerprint.environment_fingerprint(
        PROMPT, tiny.corpus(), PROBED, {**SPEED, "budget": 0}, 512
    )
    assert kept["ran"] == found["ran"]  # embeddings kept on disk were packed by the run file
    assert found["vectors"]["queries"] != found["vectors"]["passages"]
    assert found["prompt"]["query_max_length"] == PROMPT.query_max_length


def test_facts_are_plain_and_hold_no_text() -> None:
    told = json.dumps(
        fingerprint.environment_fingerprint(PROMPT, tiny.corpus(), PROBED, SPEED, 512),
        ensure_ascii=False,
    )
    texts = [text for query in QUERIES for text in (query.question, query.construct, query.subject)]
    assert not [text for text in (*texts, *tiny.corpus().values(), PROMPT.query) if text in told]


def test_the_corpus_is_told_whatever_the_order_it_is_held_in() -> None:
    known = tiny.corpus()
    turned = dict(reversed(known.items()))
    one, other = (
        fingerprint.environment_fingerprint(PROMPT, it, PROBED, SPEED, 512)["corpus"]
        for it in (known, turned)
    )
    assert one == other
    changed = {**known, next(iter(known)): "another"}
    assert fingerprint.environment_fingerprint(PROMPT, changed, PROBED, SPEED, 512)["corpus"] != one
