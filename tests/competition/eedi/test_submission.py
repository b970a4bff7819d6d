"""Kaggle's CSV: exactly the sample's rows, 25 distinct known ids each, and nothing when wrong."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.competition.eedi import submission
from parity.competition.query import MisconceptionId, QueryId
from parity.competition.ranking import Ranking
from parity.run import digest
from parity.run.errors import BadData, Mismatch, ParityError

CORPUS = [MisconceptionId(number) for number in range(100, 140)]
SAMPLE = [QueryId(name) for name in ("7_B", "7_A", "3_D", "12_C")]
HEADER = "QuestionId_Answer,MisconceptionId\n"


def ranking(query_ids: Sequence[QueryId], ids: Sequence[Sequence[int]]) -> Ranking:
    scores = np.broadcast_to(-np.arange(len(ids[0]), dtype=np.float32), (len(ids), len(ids[0])))
    return Ranking(tuple(query_ids), np.array(ids, dtype=np.int64), scores)


def drawn(query_ids: Sequence[QueryId], seed: int = 0, width: int = 30) -> Ranking:
    draw = np.random.default_rng(seed)
    return ranking(query_ids, [draw.permutation(CORPUS)[:width].tolist() for _ in query_ids])


def refusal(path: Path, found: Ranking, error: type[ParityError]) -> str:
    """Return why a ranking was not written; what lay there before is still whole."""
    path.write_text("before")
    with pytest.raises(error) as caught:
        submission.write(path, found, SAMPLE, CORPUS)
    assert path.read_text() == "before"
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    return str(caught.value)


def unread(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadData) as caught:
        submission.read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


@settings(max_examples=50, deadline=None)
@given(
    names=st.lists(
        st.builds("{}_{}".format, st.integers(0, 10**9), st.sampled_from("ABCD")),
        unique=True,
        min_size=1,
        max_size=8,
    ),
    ids=st.sets(st.integers(0, 10**18 - 1), min_size=1, max_size=40),
    data=st.data(),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], ids: set[int], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("submission") / "submission.csv"
    sample = [QueryId(name) for name in data.draw(st.permutations(names))]
    corpus = [MisconceptionId(id_) for id_ in sorted(ids)]
    asked = [QueryId(name) for name in names]
    found = ranking(asked, [data.draw(st.permutations(corpus)) for _ in asked])
    sha256 = submission.write(path, found, sample, corpus)
    again = submission.read(path)
    assert again.query_ids == tuple(sample)
    assert again.ids.tolist() == found.of(tuple(sample)).top(submission.K).ids.tolist()
    assert (np.diff(again.scores, axis=1) < 0).all()
    assert sha256 == digest.of_file(path)


def test_pandas_sees_the_samples_rows_in_order_with_25_distinct_known_ids(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    found = drawn([QueryId("99_A"), *sorted(SAMPLE)])
    submission.write(path, found, SAMPLE, CORPUS)
    frame = pd.read_csv(path)
    assert list(frame.columns) == ["QuestionId_Answer", "MisconceptionId"]
    assert frame["QuestionId_Answer"].tolist() == SAMPLE
    for query_id, cell in zip(SAMPLE, frame["MisconceptionId"], strict=True):
        ids = [int(word) for word in cell.split()]
        assert len(ids) == len(set(ids)) == 25
        assert set(ids) <= set(CORPUS)
        assert ids == found.of((query_id,)).ids[0, :25].tolist()


def test_the_bytes_are_those_of_one_hand_written_file(tmp_path: Path) -> None:
    path = tmp_path / "made" / "submission.csv"
    corpus = [MisconceptionId(value) for value in (1, 3, 9)]
    found = ranking([QueryId("2_A"), QueryId("1_D")], [[3, 1, 9], [9, 3, 1]])
    submission.write(path, found, [QueryId("1_D"), QueryId("2_A")], corpus)
    assert path.read_bytes() == (HEADER + "1_D,9 3 1\n2_A,3 1 9\n").encode()


def test_a_row_that_was_not_ranked_is_named(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    message = refusal(path, drawn(SAMPLE[:2]), Mismatch)
    assert message.startswith("2 rows of the sample are not ranked (first: 3_D)")
    assert message.endswith("run: invoke predict")


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (range(100, 124), "wants 25 distinct ids"),
        ([*range(100, 124), 100], "wants 25 distinct ids"),
        ([*range(100, 124), 7], "no misconception 7"),
    ],
    ids=["too few", "one twice", "one that does not exist"],
)
def test_a_row_without_25_distinct_known_ids_is_named(
    tmp_path: Path, cells: Sequence[int], problem: str
) -> None:
    whole = drawn(SAMPLE, width=len(cells))
    whole.ids[SAMPLE.index(QueryId("3_D"))] = list(cells)
    first = SAMPLE[0] if len(cells) < 25 else "3_D"
    message = refusal(tmp_path / "submission.csv", whole, BadData)
    assert message == f"submission, row {first}: {problem}"


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([0, 1, 3, 2], "row 3: 12_C where the sample has 3_D"),
        ([0, 1, 2], "row 4: nothing where the sample has 12_C"),
        ([0, 1, 2, 3, 1], "row 5: 7_A where the sample has nothing"),
        ([0, 1, 1, 2, 3], "row 3: 7_A where the sample has 3_D"),
    ],
    ids=["another order", "one missing", "one more", "one twice"],
)
def test_g38_rows_other_than_the_samples_are_named(rows: list[int], problem: str) -> None:
    found = drawn([SAMPLE[row] for row in rows], width=25)
    with pytest.raises(BadData, match=f"^submission, {problem}$"):
        submission.check(found, SAMPLE, CORPUS)


def test_the_whole_of_a_small_corpus_is_a_row() -> None:
    few = CORPUS[:3]
    submission.check(ranking(SAMPLE[:1], [[101, 100, 102]]), SAMPLE[:1], few)
    with pytest.raises(BadData, match="row 7_B: wants 3 distinct ids"):
        submission.check(ranking(SAMPLE[:1], [[101, 100]]), SAMPLE[:1], few)


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "1  2",
        " 1 2",
        "1 2 ",
        "1,2",
        "1 x",
        "1 -2",
        "1 2.0",
        "1 ٢",
        "01 2",
        "9" * 19,
        "9" * 5000,
    ],
    ids=lambda cell: cell[:24] or "empty",
)
def test_a_cell_that_is_no_list_of_ids_is_named(tmp_path: Path, cell: str) -> None:
    text = f'{HEADER}1_A,1 2\n1_B,"{cell}"\n'
    message = unread(tmp_path / "submission.csv", text)
    assert message == (
        ", row 2, QuestionId_Answer 1_B, column MisconceptionId: "
        "wants ids with one space between them"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ": the file is empty"),
        (HEADER, ": the file has a header but no row"),
        (f"{HEADER}1_A,1 2\n1_B,1\n", "column MisconceptionId: 1 ids, row 1 has 2"),
        (f"{HEADER}1_A,1,2\n", ", row 1: 3 columns where the header has 2"),
        ("QuestionId_Answer,Misconception\n1_A,1\n", "column MisconceptionId: is missing"),
        ("MisconceptionId,QuestionId_Answer\n1,1_A\n", "the columns must be exactly"),
        ("id,QuestionId_Answer,MisconceptionId\n0,1_A,1\n", "column id: the columns must be"),
    ],
)
def test_a_file_that_is_no_submission_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    assert problem in unread(tmp_path / "submission.csv", text)


def test_the_tiny_corpus_fits_no_more_than_it_has(tmp_path: Path) -> None:
    corpus, path = CORPUS[:24], tmp_path / "submission.csv"
    found = ranking(SAMPLE, [corpus] * len(SAMPLE))
    submission.write(path, found, SAMPLE, corpus)
    assert submission.read(path).ids.shape == (len(SAMPLE), 24)
