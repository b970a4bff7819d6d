"""Build evidence records in a millisecond: real prompts, digests and facts around a toy encoder.

The encoder tokenizes by bytes; a token is a random vector, an embedding the mean of its tokens
times a random matrix, to which an adapter adds another. A fault is planted where it arises, so that
its consequences follow as in a real run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import tiny
from numpy.typing import NDArray

from parity.analysis.compare.evidence_record import Artifacts, EvidenceRecord
from parity.competition import few_shot as shelf
from parity.competition.corpus import Corpus
from parity.competition.few_shot import Example
from parity.competition.query import PassageId, Position, Query, QueryId, UnitId
from parity.competition.ranking import Ranking
from parity.competition.scoring import metrics
from parity.competition.scoring.row_metrics import Metric
from parity.competition.splits.split import Split
from parity.deploy.kernel import fingerprint
from parity.retrieval import prompts
from parity.run import digest
from parity.run.config.prompt import PromptConfig
from parity.run.config.scoring import ScoringConfig
from parity.run.ledger import Evidence, Kind

WIDTH, K = 16, 25
METRIC = Metric("map", K)
PASSAGES: dict[PassageId, str] = {
    **dict(zip(tiny.corpus().ids, tiny.corpus().values(), strict=True)),
    **{PassageId(str(n)): f"Misconception number {n}, about {n * 7 % 11}" for n in range(10, 60)},
}
CORPUS = Corpus(PASSAGES)
PROMPT = PromptConfig(
    format="icl",
    instruction="Name the mistake.",
    query="{question}\n{wrong}",
    examples="question",
    example_count=1,
    query_max_length=400,
)
TRAIN = tuple(map(UnitId, ("10", "12", "20", "30")))
SPLIT = Split("small", "random", 0, TRAIN, tuple(map(UnitId, ("11", "21"))), frozenset())
POOL = shelf.pool(tiny.queries(), tiny.qrels(), tiny.corpus(), SPLIT)
ARTIFACTS = Artifacts(qrels=tiny.qrels(), scoring=ScoringConfig(bootstrap=100), metric=METRIC)
PACKAGES = {"torch": "2.9.0", "transformers": "5.0.0", "tokenizers": "0.22.2", "pandas": "2.3.3"}
Shown = Mapping[QueryId, Sequence[Example]]


@dataclass(frozen=True, slots=True)
class Setup:
    """Inputs of a measurement; a fault is another value of one of these."""

    files: str = "train.csv and the others, version 1"
    corpus: Corpus = field(default_factory=lambda: CORPUS)
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
    """Return the record of a setup with all its artifacts."""
    queries = tiny.queries()
    shown = setup.shown if setup.shown is not None else shelf.shown(queries, POOL, setup.prompt)
    texts = [_text(setup, query, shown) for query in queries]
    tokens = [_ids(text, slow=setup.slow) for text in texts]
    vectors = _embed(setup, tokens)
    passages = _embed(setup, [_ids(text, slow=False) for text in setup.corpus.values()])
    ids = tuple(query.query_id for query in queries)
    positions = list(setup.corpus)
    if setup.shuffled == "corpus":  # embedded in one order, read in another
        positions = [*positions[1:], positions[0]]
    ranking = _rank(ids, vectors, passages, positions)
    if setup.shuffled == "vectors":
        vectors = vectors[::-1].copy()
        ranking = replace(ranking, positions=ranking.positions[::-1].copy())
    probe = fingerprint.ProbeTexts(ids, texts, tokens, shown, vectors, passages)
    submission = _submission(setup, ranking)
    evidence = Evidence(
        "small",
        0,
        setup.label,
        setup.kind,
        setup.status,
        {
            **_input_layers(setup, shown),
            "texts": digest.of_lines(texts),
            "tokens": digest.of_value(tokens),
            "embeddings": digest.of_bytes(vectors.tobytes() + passages.tobytes()),
            "ranking": ranking.digest(),
            "submission": digest.of_value([submission.query_ids, submission.positions.tolist()]),
        },
        _score(setup, ranking),
        _facts(setup, probe, ranking),
    )
    rows = [
        {"query_id": query_id, "text": text, "tokens": row}
        for query_id, text, row in zip(ids, texts, tokens, strict=True)
    ]
    return EvidenceRecord(
        evidence,
        vectors=vectors,
        base_vectors=_embed(replace(setup, adapter=0), tokens),
        probe=ranking,
        valid=ranking,
        submission=submission,
        texts=rows,
        settings=setup.prompt.model_dump(mode="json"),
    )


def _input_layers(setup: Setup, shown: Shown) -> dict[str, str]:
    examples = {key: [example.query.query_id for example in row] for key, row in shown.items()}
    return {
        "data": digest.of_text(setup.files),
        "split": digest.of_text(setup.split),
        "lineage": digest.of_value(list(setup.trained)),
        "examples": digest.of_value([setup.prompt.examples, examples]),
        "template": digest.of_value([prompts.template_digest(setup.prompt), setup.literal]),
        "base": digest.of_value(setup.base),
        "adapter": digest.of_value(setup.adapter) if setup.adapter else "",
        "precision": f"{setup.precision}/{'4bit' if setup.bits else 'none'}",
        "device": setup.device,
        "packages": digest.of_value(dict(setup.packages)),
    }


def _facts(setup: Setup, probe: fingerprint.ProbeTexts, ranking: Ranking) -> dict[str, Any]:
    speed = {"budget": setup.budget, "processes": setup.processes}
    facts = fingerprint.environment_fingerprint(
        setup.prompt, setup.corpus, probe, speed, setup.budget
    )
    # The digest of this project's source is fixed, too: the source may change during the tests.
    versions = {"packages": dict(setup.packages), "threads": setup.threads, "code": setup.code}
    facts["environment"] |= versions
    return {**facts, "split": setup.split, "valid": ranking.digest()}


def _text(setup: Setup, query: Query, shown: Shown) -> str:
    examples = shown.get(query.query_id, ())
    text = prompts.query(setup.prompt, query, examples, count=len).text
    return text.replace("\n<query>", "\\n<query>") if setup.literal else text


def _ids(text: str, *, slow: bool) -> list[int]:
    ids = list(text.encode())
    return [300, *ids[1:]] if slow and ids[0] == ord("<") else ids


def _embed(setup: Setup, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    generator = np.random.default_rng(setup.base)
    table, weights = (
        generator.normal(size=(301, WIDTH)),
        np.eye(WIDTH) + generator.normal(size=(WIDTH, WIDTH)) / 4,
    )
    if setup.adapter:
        delta = np.random.default_rng(setup.adapter).normal(size=(WIDTH, WIDTH)) / 4
        weights = weights + setup.scale * delta
    if setup.bits:
        step = np.abs(weights).max() / 2 ** (setup.bits - 1)
        weights = np.round(weights / step) * step
    # The last tokens count most, as in a causal model, so that rows differ.
    means = [
        (table[list(ids)] * np.linspace(0, 1, len(ids))[:, None] ** 4).mean(axis=0)
        for ids in tokens
    ]
    vectors = np.array(means) @ weights
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    noise = np.random.default_rng(7).normal(size=vectors.shape) * setup.drift
    # Equal sequences share the tokens of a pack, so that they drift alike.
    first = {tuple(ids): row for row, ids in reversed(list(enumerate(tokens)))}
    vectors = (vectors + noise)[[first[tuple(ids)] for ids in tokens]]
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(
        "f4"
    )
    return unit


def _rank(
    ids: tuple[QueryId, ...],
    vectors: NDArray[np.float32],
    passages: NDArray[np.float32],
    positions: Sequence[Position],
) -> Ranking:
    distinct, inverse = np.unique(passages, axis=0, return_inverse=True)  # as `search.top`
    scores = (vectors @ distinct.T)[:, inverse.reshape(-1)]
    order = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    return Ranking(ids, np.array(positions)[order], np.take_along_axis(scores, order, axis=1))


def _submission(setup: Setup, ranking: Ranking) -> Ranking:
    submission = ranking.of(ranking.query_ids[: setup.rows or None]).top(setup.width)
    if setup.shuffled == "submission":
        return replace(submission, positions=np.roll(submission.positions, 1, axis=0))
    return submission


def _score(setup: Setup, ranking: Ranking) -> dict[str, Any]:
    ids = ranking.query_ids[: setup.scored or None]
    labels = {query_id: tiny.qrels()[query_id] for query_id in ids}
    scores = metrics.evaluate(ranking.of(ids), labels, frozenset(), ARTIFACTS.scoring, METRIC)
    record = scores.as_json()
    if setup.metric != K:  # a score of another depth under the key of 25
        record["all"][METRIC.key]["value"] += 0.002
    return record
