"""Two environments are compared by texts, tokens, embeddings and rankings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parity.competition import ranking as rankings
from parity.competition.query import Position, Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring.row_metrics import Metric
from parity.deploy.kernel import image_comparison
from parity.deploy.kernel.image_comparison import RunOutputs
from parity.run import files
from parity.run.errors import Mismatch

LAYERS = {"template": "m", "examples": "e", "texts": "x", "tokens": "t", "ranking": "r"}
VECTORS = np.eye(3, 4, dtype=np.float32)
QUERIES = tuple(QueryId(name) for name in ("1_A", "2_B", "3_C"))
METRIC = Metric("map", 25)
QRELS: Qrels = {query: frozenset({Position(0)}) for query in QUERIES}


def ranked(*first: int, width: int = 25) -> Ranking:
    """Return a ranking of ascending ids with a chosen first id in each row."""
    rows = [[id_, *(n for n in range(width) if n != id_)][:width] for id_ in first]
    scores = np.broadcast_to(-np.arange(width, dtype=np.float32), (len(first), width))
    return Ranking(QUERIES[: len(first)], np.array(rows, dtype=np.int64), scores)


LOCAL = RunOutputs(LAYERS, VECTORS, ranked(0, 0, 0), ranked(0, 0, 0))


def test_equal_outputs_are_equal() -> None:
    result = image_comparison.compare(LOCAL, LOCAL, METRIC, QRELS)
    assert (result.unequal, result.cosine, result.overlap) == ("", 1.0, 1.0)
    assert (result.rows, result.of, result.difference) == (0, 3, 0.0)
    image_comparison.compare_outputs(result, "fp32")
    assert str(result) == (
        "token ids equal; probe cosine at least 1.0000000; overlap of submissions 1.0000; "
        "0 of 3 rows of the submission differ; MAP@25 of the probe +0.00000"
    )


@pytest.mark.parametrize("name", ["template", "examples", "texts", "tokens"])
def test_texts_and_tokens_must_be_equal(name: str) -> None:
    remote = replace(LOCAL, layers={**LAYERS, name: "another", "ranking": "another"})
    result = image_comparison.compare(LOCAL, remote, METRIC)
    assert result.unequal == name
    for precision in ("fp32", "fp16"):
        with pytest.raises(Mismatch, match=rf"^layer {name} differs between the environments"):
            image_comparison.compare_outputs(result, precision)
    assert str(result).startswith(f"first layer that differs: {name}; ")


def test_a_ranking_may_differ_and_is_counted() -> None:
    remote = replace(LOCAL, layers={**LAYERS, "ranking": "x"}, submission=ranked(0, 3, 30))
    result = image_comparison.compare(LOCAL, remote, METRIC)
    assert (result.rows, result.of) == (2, 3)  # a row in another order, a row with another id
    assert result.overlap == pytest.approx((1 + 1 + 24 / 25) / 3)
    assert result.difference is None
    image_comparison.compare_outputs(result, "fp32")


def test_the_difference_of_map_is_remote_minus_local() -> None:
    remote = replace(LOCAL, ranking=ranked(0, 1, 1))  # the right id at rank 2, twice
    assert image_comparison.compare(LOCAL, remote, METRIC, QRELS).difference == pytest.approx(
        -1 / 3
    )
    assert image_comparison.compare(remote, LOCAL, METRIC, QRELS).difference == pytest.approx(1 / 3)


def turned(angle: float) -> RunOutputs:
    vectors = VECTORS.copy()
    vectors[1] = [0, np.cos(angle), np.sin(angle), 0]
    return replace(LOCAL, vectors=vectors)


def test_embeddings_must_be_nearly_equal_only_in_full_precision() -> None:
    image_comparison.compare_outputs(
        image_comparison.compare(LOCAL, turned(0.004), METRIC), "fp32"
    )  # 1 - 8e-6
    far = image_comparison.compare(LOCAL, turned(0.006), METRIC)  # 1 - 1.8e-5
    assert far.cosine == pytest.approx(np.cos(0.006), abs=1e-7)
    with pytest.raises(Mismatch, match=r"cosine 0\.99998\d+ with the local one"):
        image_comparison.compare_outputs(far, "fp32")
    image_comparison.compare_outputs(far, "fp16")


@pytest.mark.parametrize(
    ("remote", "label"),
    [
        (replace(LOCAL, submission=ranked(0, 0)), "rows of the test"),
        (replace(LOCAL, ranking=ranked(0, 0)), "rows of the probe"),
        (replace(LOCAL, vectors=VECTORS[:, :3]), "sizes of the probe's embeddings"),
    ],
)
def test_outputs_of_other_rows_or_sizes_are_refused(remote: RunOutputs, label: str) -> None:
    with pytest.raises(Mismatch, match=f"^the {label} differ between the environments"):
        image_comparison.compare(LOCAL, remote, METRIC)


def test_outputs_are_read_from_a_kernel_s_folder(tmp_path: Path) -> None:
    rankings.write(tmp_path / "probe_ranking.jsonl", LOCAL.ranking)
    files.write_array(tmp_path / "probe.npy", VECTORS)
    read = image_comparison.read(tmp_path, LAYERS, LOCAL.submission)
    result = image_comparison.compare(LOCAL, read, METRIC, QRELS)
    assert (result.unequal, result.cosine, result.rows, result.difference) == ("", 1.0, 0, 0.0)
