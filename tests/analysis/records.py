"""A whole measurement in a millisecond: real prompts, digests and facts around a toy encoder.

It tokenizes byte by byte, a token is a random vector, an embedding a tokens' mean through a random
matrix, to which an adapter adds another. Every fault is planted where it arises, so that what
follows from it follows here too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import tiny
from numpy.typing import NDArray

from parity.analysis.compare.evidence_record import Artifacts, EvidenceRecord
from parity.competition import few_shot as shelf
from parity.competition.few_shot import Example
from parity.competition.query import Corpus, MisconceptionId, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring import metrics
from parity.competition.splits.split import Split
from parity.deploy.kernel import fingerprint
from parity.retrieval import prompts
from parity.run import digest
from parity.run.config.run_file import PromptConfig, ScoringConfig
from parity.run.ledger import Evidence, Kind

WIDTH, K = 16, 25
CORPUS: Corpus = {
    **tiny.corpus(),
    **{MisconceptionId(n): f"Misconception number {n}, about {n * 7 % 11}" for n in range(10, 60)},
}
PROMPT = PromptConfig(
    format="icl",
    instruction="Name the mistake.",
    query="{question}\n{wrong}",
    examples="question",
    example_count=1,
    query_max_length=400,
)
SPLIT = Split("small", "random", 0, (10, 12, 20, 30), (11, 21), frozenset())
POOL = shelf.pool(tiny.queries(), tiny.qrels(), tiny.corpus(), SPLIT)
KNOWN = Artifacts(qrels=tiny.qrels(), scoring=ScoringConfig(bootstrap=100))
PACKAGES = {"torch": "2.9.0", "transformers": "5.0.0", "tokenizers": "0.22.2", "pandas": "2.3.3"}
Shown = Mapping[QueryId, Sequence[Example]]


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything that one measurement depends on; each fault is another value of one of these."""

    files: str = "train.csv and the others, version 1"
    corpus: Corpus = field(default_factory=lambda: dict(CORPUS))
    split: str = "unseen-0.75-s0"
    trained: tuple[int, ...] = (10, 12, 20, 30)
    status: Literal["clean", "contaminated", "unscored"] = "clean"
    base: int = 0
    adapter: int = 1
    scale: float = 1.0
    prompt: PromptConfig = PROMPT
    literal: bool = False
    shown: Shown | None = None
    slow: bool = False
    packages: Mapping[str, str] = field(default_factory=lambda: dict(PACKAGES))
    code: str = "c" * 64
    precision: str = "float32"
    bits: int = 0
    device: str = "cpu"
    budget: int = 512
    processes: int = 1
    threads: str = "1"
    drift: float = 0.0
    shuffled: str = ""
    rows: int = 0
    width: int = K
    metric: int = K
    scored: int = 0
    kind: Kind = "cv"
    label: str = "best"


def measure(setup: Setup) -> EvidenceRecord:
    """Return the side that a setup gives, every artifact of it at hand."""
    queries = tiny.queries()
    shown = setup.shown if setup.shown is not None else shelf.shown(queries, POOL, setup.prompt)
    texts = [_text(setup, query, shown) for query in queries]
    tokens = [_ids(text, slow=setup.slow) for text in texts]
    vectors = _embed(setup, tokens)
    passages = _embed(setup, [_ids(text, slow=False) for _, text in sorted(setup.corpus.items())])
    ids = tuple(query.query_id for query in queries)
    known = sorted(setup.corpus)
    if setup.shuffled == "corpus":  # embedded in one order, read in another
        known = [*known[1:], known[0]]
    ranking = _rank(ids, vectors, passages, known)
    if setup.shuffled == "vectors":
        vectors, ranking = vectors[::-1].copy(), replace(ranking, ids=ranking.ids[::-1].copy())
    asked = fingerprint.ProbeTexts(ids, texts, tokens, shown, vectors, passages)
    speed = {"budget": setup.budget, "processes": setup.processes}
    facts = fingerprint.environment_fingerprint(
        setup.prompt, setup.corpus, asked, speed, setup.budget
    )
    there = {"packages": dict(setup.packages), "threads": setup.threads, "code": setup.code}
    facts["environment"] |= there  # `code` too, which somebody may be editing
    facts |= {"split": setup.split, "valid": ranking.digest()}
    submitted = _submitted(setup, ranking)
    layers = {
        "data": digest.of_text(setup.files),
        "split": digest.of_text(setup.split),
        "lineage": digest.of_value(list(setup.trained)),
        "examples": digest.of_value(
            [
                setup.prompt.examples,
                {key: [e.query.query_id for e in v] for key, v in shown.items()},
            ]
        ),
        "template": digest.of_value([prompts.template_digest(setup.prompt), setup.literal]),
        "texts": digest.of_lines(texts),
        "tokens": digest.of_value(tokens),
        "base": digest.of_value(setup.base),
        "adapter": digest.of_value(setup.adapter) if setup.adapter else "",
        "precision": f"{setup.precision}/{'4bit' if setup.bits else 'none'}",
        "device": setup.device,
        "packages": digest.of_value(dict(setup.packages)),
        "embeddings": digest.of_bytes(vectors.tobytes() + passages.tobytes()),
        "ranking": ranking.digest(),
        "submission": digest.of_value([submitted.query_ids, submitted.ids.tolist()]),
    }
    record = Evidence(
        "small",
        0,
        setup.label,
        setup.kind,
        setup.status,
        layers,
        _score(setup, ranking),
        facts,
    )
    rows = [
        {"query_id": one, "text": text, "tokens": row}
        for one, text, row in zip(ids, texts, tokens, strict=True)
    ]
    return EvidenceRecord(
        record,
        vectors=vectors,
        bare=_embed(replace(setup, adapter=0), tokens),
        probe=ranking,
        valid=ranking,
        submission=submitted,
        texts=rows,
        settings=setup.prompt.model_dump(mode="json"),
    )


def _text(setup: Setup, query: Any, shown: Shown) -> str:
    chosen = shown.get(query.query_id, ())
    text = prompts.query(setup.prompt, query, chosen, count=len).text
    return text.replace("\n<query>", "\\n<query>") if setup.literal else text


def _ids(text: str, *, slow: bool) -> list[int]:
    ids = list(text.encode())
    return [300, *ids[1:]] if slow and ids[0] == ord("<") else ids


def _embed(setup: Setup, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    drawn = np.random.default_rng(setup.base)
    table, weights = (
        drawn.normal(size=(301, WIDTH)),
        np.eye(WIDTH) + drawn.normal(size=(WIDTH, WIDTH)) / 4,
    )
    if setup.adapter:
        delta = np.random.default_rng(setup.adapter).normal(size=(WIDTH, WIDTH)) / 4
        weights = weights + setup.scale * delta
    if setup.bits:
        step = np.abs(weights).max() / 2 ** (setup.bits - 1)
        weights = np.round(weights / step) * step
    # The last tokens count most, as with a causal model, so that rows differ.
    means = [
        (table[list(ids)] * np.linspace(0, 1, len(ids))[:, None] ** 4).mean(axis=0)
        for ids in tokens
    ]
    found = np.array(means) @ weights
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    noise = np.random.default_rng(7).normal(size=found.shape) * setup.drift
    # Equal sequences are one node of a pack: whatever drifts, drifts for both.
    first = {tuple(ids): place for place, ids in reversed(list(enumerate(tokens)))}
    found = (found + noise)[[first[tuple(ids)] for ids in tokens]]
    unit: NDArray[np.float32] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype("f4")
    return unit


def _rank(
    ids: tuple[QueryId, ...],
    vectors: NDArray[np.float32],
    passages: NDArray[np.float32],
    known: Sequence[MisconceptionId],
) -> Ranking:
    distinct, place = np.unique(passages, axis=0, return_inverse=True)  # as `search.top`
    scores = (vectors @ distinct.T)[:, place.reshape(-1)]
    order = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    return Ranking(ids, np.array(known)[order], np.take_along_axis(scores, order, axis=1))


def _submitted(setup: Setup, ranking: Ranking) -> Ranking:
    whole = ranking.of(ranking.query_ids[: setup.rows or None]).top(setup.width)
    if setup.shuffled == "submission":
        return replace(whole, ids=np.roll(whole.ids, 1, axis=0))
    return whole


def _score(setup: Setup, ranking: Ranking) -> dict[str, Any]:
    ids = ranking.query_ids[: setup.scored or None]
    labels = {id_: tiny.qrels()[id_] for id_ in ids}
    scores = metrics.evaluate(ranking.of(ids), labels, frozenset(), KNOWN.scoring, k=K)
    record = scores.as_json()
    if setup.metric != K:  # the number of another depth under the key of 25
        record["all"][f"map@{K}"]["value"] += 0.002
    return record
