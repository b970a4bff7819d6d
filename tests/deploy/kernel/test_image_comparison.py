"""Two environments are compared by texts, tokens, embeddings and rankings: told, and judged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parity.competition import ranking as rankings
from parity.competition.eedi import submission
from parity.competition.query import MisconceptionId, Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.deploy.kernel import image_comparison
from parity.deploy.kernel.image_comparison import RunOutputs
from parity.run import files
from parity.run.errors import Mismatch

LAYERS = {"template": "m", "examples": "e", "texts": "x", "tokens": "t", "ranking": "r"}
VECTORS = np.eye(3, 4, dtype=np.float32)
QUERIES = tuple(QueryId(name) for name in ("1_A", "2_B", "3_C"))
QRELS: Qrels = {query: frozenset({MisconceptionId(0)}) for query in QUERIES}


def ranked(*first: int, width: int = 25) -> Ranking:
    """Return a ranking of ascending ids, each row beginning with one that is told."""
    rows = [[one, *(n for n in range(width) if n != one)][:width] for one in first]
    scores = np.broadcast_to(-np.arange(width, dtype=np.float32), (len(first), width))
    return Ranking(QUERIES[: len(first)], np.array(rows, dtype=np.int64), scores)


HERE = RunOutputs(LAYERS, VECTORS, ranked(0, 0, 0), ranked(0, 0, 0))


def test_equal_sides_are_equal() -> None:
    found = image_comparison.compare(HERE, HERE, QRELS)
    assert (found.unequal, found.cosine, found.overlap) == ("", 1.0, 1.0)
    assert (found.rows, found.of, found.difference) == (0, 3, 0.0)
    image_comparison.compare_outputs(found, "fp32")
    assert str(found) == (
        "token ids equal; probe cosine at least 1.0000000; overlap@25 1.0000; "
        "0 of 3 rows of the submission differ; MAP@25 of the probe +0.00000"
    )


@pytest.mark.parametrize("name", ["template", "examples", "texts", "tokens"])
def test_texts_and_tokens_must_be_equal(name: str) -> None:
    there = replace(HERE, layers={**LAYERS, name: "another", "ranking": "another"})
    found = image_comparison.compare(HERE, there)
    assert found.unequal == name
    for precision in ("fp32", "fp16"):
        with pytest.raises(Mismatch, match=rf"^layer {name} differs between the environments"):
            image_comparison.compare_outputs(found, precision)
    assert str(found).startswith(f"first layer that differs: {name}; ")


def test_a_ranking_may_differ_and_is_counted() -> None:
    there = replace(HERE, layers={**LAYERS, "ranking": "x"}, submission=ranked(0, 3, 30))
    found = image_comparison.compare(HERE, there)
    assert (found.rows, found.of) == (2, 3)  # one swapped, one with another id
    assert found.overlap == pytest.approx((1 + 1 + 24 / 25) / 3)
    assert found.difference is None
    image_comparison.compare_outputs(found, "fp32")


def test_the_difference_of_map_is_there_less_here() -> None:
    there = replace(HERE, ranking=ranked(0, 1, 1))  # the right id in the second place, twice
    assert image_comparison.compare(HERE, there, QRELS).difference == pytest.approx(-1 / 3)
    assert image_comparison.compare(there, HERE, QRELS).difference == pytest.approx(1 / 3)


def turned(angle: float) -> RunOutputs:
    vectors = VECTORS.copy()
    vectors[1] = [0, np.cos(angle), np.sin(angle), 0]
    return replace(HERE, vectors=vectors)


def test_embeddings_must_be_near_in_full_precision_alone() -> None:
    image_comparison.compare_outputs(
        image_comparison.compare(HERE, turned(0.004)), "fp32"
    )  # 1 - 8e-6
    far = image_comparison.compare(HERE, turned(0.006))  # 1 - 1.8e-5
    assert far.cosine == pytest.approx(np.cos(0.006), abs=1e-7)
    with pytest.raises(Mismatch, match=r"cosine 0\.99998\d+ with the one made here"):
        image_comparison.compare_outputs(far, "fp32")
    image_comparison.compare_outputs(far, "fp16")


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (replace(HERE, submission=ranked(0, 0)), "rows of the test"),
        (replace(HERE, ranking=ranked(0, 0)), "rows of the probe"),
        (replace(HERE, vectors=VECTORS[:, :3]), "sizes of the probe's embeddings"),
    ],
)
def test_what_cannot_be_compared_is_refused(other: RunOutputs, what: str) -> None:
    with pytest.raises(Mismatch, match=f"^the {what} here are not those there"):
        image_comparison.compare(HERE, other)


def test_a_side_is_read_from_what_a_kernel_leaves(tmp_path: Path) -> None:
    rankings.write(tmp_path / "probe_ranking.jsonl", HERE.ranking)
    files.write_array(tmp_path / "probe.npy", VECTORS)
    corpus = [MisconceptionId(number) for number in range(25)]
    submission.write(tmp_path / "submission.csv", HERE.submission, QUERIES, corpus)
    read = image_comparison.read(tmp_path, LAYERS, tmp_path / "submission.csv")
    found = image_comparison.compare(HERE, read, QRELS)
    assert (found.unequal, found.cosine, found.rows, found.difference) == ("", 1.0, 0, 0.0)
