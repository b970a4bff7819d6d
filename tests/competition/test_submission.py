"""A submission has exactly the rows of the test, in the competition's format."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.competition.corpus import Corpus
from parity.competition.eedi.kaggle_files import build_query
from parity.competition.query import PassageId, Query, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring.row_metrics import Metric
from parity.competition.submission import SubmissionFormat
from parity.run import digest
from parity.run.errors import BadData, Mismatch, ParityError

COLUMNS = ("QuestionId_Answer", "MisconceptionId")
FORMAT = SubmissionFormat(columns=COLUMNS)
MAP25 = Metric("map", 25)
HEADER = "QuestionId_Answer,MisconceptionId\n"


def corpus_of(*ids: object) -> Corpus:
    return Corpus({PassageId(str(passage_id)): f"text {passage_id}" for passage_id in ids})


def queries_of(*names: str) -> list[Query]:
    return [
        build_query(
            int(name[:-2]),
            name[-1],
            construct=(1, "Add"),
            subject=(1, "Sums"),
            question="?",
            answers=("1", "2"),
        )
        for name in names
    ]


CORPUS = corpus_of(*range(100, 140))
TEST = queries_of("7_B", "7_A", "3_D", "12_C")


def ranking(queries: Sequence[Query], positions: Sequence[Sequence[int]]) -> Ranking:
    shape = (len(positions), len(positions[0]))
    scores = np.broadcast_to(-np.arange(shape[1], dtype=np.float32), shape)
    query_ids = tuple(query.query_id for query in queries)
    return Ranking(query_ids, np.array(positions, dtype=np.int64), scores)


def random_ranking(queries: Sequence[Query], seed: int = 0, width: int = 30) -> Ranking:
    draw = np.random.default_rng(seed)
    return ranking(queries, [draw.permutation(len(CORPUS))[:width].tolist() for _ in queries])


def refusal(path: Path, ranked: Ranking, error: type[ParityError]) -> str:
    """Return why a ranking was not written; the earlier file is unchanged."""
    path.write_text("before")
    with pytest.raises(error) as raised:
        FORMAT.write(path, ranked, TEST, CORPUS, MAP25)
    assert path.read_text() == "before"
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    return str(raised.value)


def read_error(path: Path, text: str, form: SubmissionFormat = FORMAT) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadData) as raised:
        form.read(path, TEST, corpus_of(1, 2, 3))
    message = str(raised.value)
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
    ids=st.sets(st.text("abc-019", min_size=1), min_size=1, max_size=40),
    separator=st.sampled_from((" ", ",", "")),
    data=st.data(),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    ids: set[str],
    separator: str,
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.mktemp("submission") / "submission.csv"
    test, corpus = queries_of(*names), corpus_of(*sorted(ids))
    order = data.draw(st.permutations(test))
    ranked = ranking(order, [data.draw(st.permutations(list(corpus))) for _ in order])
    form = SubmissionFormat(columns=COLUMNS, separator=separator)
    sha256 = form.write(path, ranked, test, corpus, MAP25)
    result = form.read(path, test, corpus)
    query_ids = tuple(query.query_id for query in test)
    assert result.query_ids == query_ids
    assert result.positions.tolist() == ranked.of(query_ids).top(25).positions.tolist()
    assert (np.diff(result.scores, axis=1) < 0).all()
    assert sha256 == digest.of_file(path)


def test_pandas_sees_the_rows_of_the_test_with_25_distinct_known_ids(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    ranked = random_ranking([*queries_of("99_A"), *TEST[::-1]])
    FORMAT.write(path, ranked, TEST, CORPUS, MAP25)
    frame = pd.read_csv(path)
    assert list(frame.columns) == list(COLUMNS)
    assert frame[COLUMNS[0]].tolist() == [query.row for query in TEST]
    for query, cell in zip(TEST, frame[COLUMNS[1]], strict=True):
        positions = [CORPUS.at(word) for word in cell.split()]
        assert len(positions) == len(set(positions)) == 25
        assert positions == ranked.of((query.query_id,)).positions[0, :25].tolist()


@pytest.mark.parametrize(
    ("separator", "body"),
    [
        (" ", "1_D,c a b\n2_A,a b c\n"),
        (",", '1_D,"c,a,b"\n2_A,"a,b,c"\n'),
        ("", "1_D,c\n1_D,a\n1_D,b\n2_A,a\n2_A,b\n2_A,c\n"),
    ],
    ids=["space", "comma", "rows"],
)
def test_the_bytes_are_those_of_one_hand_written_file(
    tmp_path: Path, separator: str, body: str
) -> None:
    path = tmp_path / "made" / "submission.csv"
    test = queries_of("1_D", "2_A")
    ranked = ranking(test[::-1], [[0, 1, 2], [2, 0, 1]])
    form = SubmissionFormat(columns=COLUMNS, separator=separator)
    form.write(path, ranked, test, corpus_of("a", "b", "c"), MAP25)
    assert path.read_bytes() == (HEADER + body).encode()


@pytest.mark.parametrize(
    ("metric", "body"),
    [
        (Metric("fbeta", 3, count=2), "1_D,a b\n2_A,c b\n"),
        (Metric("fbeta", 3, threshold=0.5), "1_D,a b c\n2_A,c\n"),
    ],
    ids=["fixed count", "threshold"],
)
def test_f_beta_names_as_many_passages_as_it_predicts(
    tmp_path: Path, metric: Metric, body: str
) -> None:
    path, test, corpus = tmp_path / "submission.csv", queries_of("1_D", "2_A"), corpus_of(*"abc")
    ranked = ranking(test, [[0, 1, 2], [2, 1, 0]])
    scores = np.array([[0.9, 0.8, 0.5], [0.4, 0.3, 0.2]], dtype=np.float32)
    ranked = Ranking(ranked.query_ids, ranked.positions, scores)
    FORMAT.write(path, ranked, test, corpus, metric)
    assert path.read_text(encoding="utf-8") == HEADER + body
    result = FORMAT.read(path, test, corpus)
    rows = zip(result.positions.tolist(), result.scores.tolist(), strict=True)
    values = [metric.value(*row, frozenset({0})) for row in rows]
    rows = zip(ranked.positions.tolist(), ranked.scores.tolist(), strict=True)
    assert values == [metric.value(*row, frozenset({0})) for row in rows]


def test_a_row_that_was_not_ranked_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path / "submission.csv", random_ranking(TEST[:2]), Mismatch)
    assert message == "2 rows of the test are not ranked (first: 3_D)"


@pytest.mark.parametrize("cells", [range(24), [*range(24), 0]], ids=["too few", "one twice"])
def test_a_row_without_25_distinct_ids_is_named(tmp_path: Path, cells: Sequence[int]) -> None:
    ranked = random_ranking(TEST, width=len(cells))
    ranked.positions[2] = list(cells)
    first = "7_B" if len(cells) < 25 else "3_D"
    message = refusal(tmp_path / "submission.csv", ranked, BadData)
    assert message == f"submission, row {first}: wants 25 distinct ids"


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
    submitted = random_ranking([TEST[row] for row in rows], width=25)
    with pytest.raises(BadData, match=f"^submission, {problem}$"):
        FORMAT.check(submitted, TEST, CORPUS, MAP25)


def test_a_small_corpus_needs_all_its_passages_in_a_row() -> None:
    small = corpus_of(*range(3))
    FORMAT.check(ranking(TEST[:1], [[1, 0, 2]]), TEST[:1], small, MAP25)
    with pytest.raises(BadData, match="row 7_B: wants 3 distinct ids"):
        FORMAT.check(ranking(TEST[:1], [[1, 0]]), TEST[:1], small, MAP25)


@pytest.mark.parametrize("cell", ["", "1  2", " 1 2", "1 2 ", "1 \t2"])
def test_a_cell_that_is_not_a_list_of_ids_is_named(tmp_path: Path, cell: str) -> None:
    message = read_error(tmp_path / "submission.csv", f'{HEADER}1_A,1 2\n1_B,"{cell}"\n')
    assert message == (
        ", row 2, QuestionId_Answer 1_B, column MisconceptionId: "
        "wants ids with one space between them"
    )


@pytest.mark.parametrize("cell", ["1,2", "1 x", "1 -2", "1 2.0", "1 ٢", "01 2", "9" * 5000])
def test_an_unknown_passage_is_named(tmp_path: Path, cell: str) -> None:
    message = read_error(tmp_path / "submission.csv", f'{HEADER}1_A,1 2\n1_B,"{cell}"\n')
    cell_name = ", row 2, QuestionId_Answer 1_B, column MisconceptionId: the corpus has no passage"
    assert message.startswith(cell_name)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ": the file is empty"),
        (HEADER, ": the file has a header but no row"),
        (f"{HEADER}1_A,1,2\n", ", row 1: 3 columns where the header has 2"),
        ("QuestionId_Answer,Misconception\n1_A,1\n", "column MisconceptionId: is missing"),
        ("MisconceptionId,QuestionId_Answer\n1,1_A\n", "the columns must be exactly"),
        ("id,QuestionId_Answer,MisconceptionId\n0,1_A,1\n", "column id: the columns must be"),
    ],
)
def test_a_file_that_is_not_a_submission_is_refused(
    tmp_path: Path, text: str, problem: str
) -> None:
    assert problem in read_error(tmp_path / "submission.csv", text)


def test_rows_of_other_queries_keep_their_own_names(tmp_path: Path) -> None:
    path = tmp_path / "solution.csv"
    path.write_text(f"{HEADER}7_B,1\n99_A,1 3\n", encoding="utf-8")
    result = FORMAT.read(path, TEST, corpus_of(1, 2, 3))
    assert result.query_ids == (QueryId("7_B"), QueryId("99_A"))
    assert result.positions.tolist() == [[0, -1], [0, 2]]
