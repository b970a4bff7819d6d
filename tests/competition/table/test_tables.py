"""Tables of any column names become queries, labels and passages; an error names its cell."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from parity.competition.base import Competition
from parity.competition.kinds import competition_of
from parity.competition.query import Query
from parity.run.config.competition import CompetitionConfig
from parity.run.config.split import SplitConfig
from parity.run.errors import BadConfig, BadData

QUERIES = (
    ("case", "client", "kind", "title", "body"),
    ("c10", "ann", "web", "No page", "The page is blank"),
    ("c2", "bob", "mail", "No mail", ""),
    ("c_3", "ann", "web", "Slow page", "It takes a minute"),
    ("c4", "eve", "mail", "Spam", "Too much of it"),
)
TEST = (QUERIES[0], ("c9", "dan", "web", "No login", ""), ("c8", "dan", "web", "No page", "Blank"))
CORPUS = (
    ("article", "text"),
    ("a2", "Restart the server"),
    ("a10", "Clear the cache"),
    ("a1", "Call us"),
)
LABELS = (("case", "articles"), ("c10", "a10;a2"), ("c_3", "a2"), ("c4", ""), ("c2", "a1"))
CONFIG: dict[str, Any] = {
    "kind": "table",
    "query_id": "case",
    "passage_id": "article",
    "label": "articles",
    "label_separator": ";",
    "unit": "client",
    "groups": ("kind",),
    "query_texts": ("title", "body"),
    "k": 2,
}
Rows = tuple[tuple[str, ...], ...]


def config_of(**keys: Any) -> CompetitionConfig:
    return CompetitionConfig(**{**CONFIG, **keys})


def write(folder: Path, **changes: Rows) -> Path:
    """Write the four tables, some of them changed, and return the folder."""
    tables = {"queries": QUERIES, "test": TEST, "corpus": CORPUS, "labels": LABELS, **changes}
    for name, (header, *rows) in tables.items():
        tiny.write_csv(folder / f"{name}.csv", header, rows)
    return folder


def open_table(**keys: Any) -> Competition:
    return competition_of(config_of(**keys))


def ids(queries: list[Query]) -> list[str]:
    return [query.query_id for query in queries]


def error_of(folder: Path, competition: Competition) -> str:
    with pytest.raises(BadData) as error:
        competition.read(folder)
    message = str(error.value)
    assert "\n" not in message
    return message.removeprefix(str(folder))


def test_queries_labels_and_passages_are_those_of_the_tables(tmp_path: Path) -> None:
    data = open_table().read(write(tmp_path))
    assert data.corpus.ids == ("a1", "a10", "a2")
    labels = {
        query_id: [data.corpus.ids[position] for position in sorted(positions)]
        for query_id, positions in data.qrels.items()
    }
    assert labels == {"ann_c10": ["a10", "a2"], "bob_c2": ["a1"], "ann_c-3": ["a2"]}
    assert ids(data.queries) == list(labels)
    assert ids(data.test) == ["dan_c9", "dan_c8"]  # in the order of the file
    first = data.queries[0]
    assert (first.unit, first.row, first.unit_size, first.topic) == ("ann", "c10", 2, "web")
    assert first.fields == {"title": "No page", "body": "The page is blank"}
    assert sorted(data.files) == ["corpus.csv", "labels.csv", "queries.csv", "test.csv"]


def test_ids_that_are_numbers_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    corpus = (CORPUS[0], ("10", "ten"), ("9", "nine"), ("2.0", "two"))
    labels = (LABELS[0], ("c10", "10"), ("c2", "2"))
    competition = open_table(passage_order="number")
    data = competition.read(write(tmp_path, corpus=corpus, labels=labels))
    assert data.corpus.ids == ("2", "9", "10")


def test_a_query_without_a_unit_stands_alone_and_equal_texts_are_one_unit(tmp_path: Path) -> None:
    competition = open_table(unit="")
    data = competition.read(write(tmp_path))
    assert ids(data.queries) == ["c10", "c2", "c_3_0"]
    assert [query.unit for query in data.queries] == ["c10", "c2", "c_3"]
    assert data.queries[0].identity == "No page\nThe page is blank"


def test_labels_and_passages_may_be_columns_of_the_queries(tmp_path: Path) -> None:
    header = (*QUERIES[0], "answer", "reply")
    rows = [
        (*row, *answer)
        for row, answer in zip(
            QUERIES[1:],
            (("r1", "Yes"), ("r2", "No"), ("r1", "Yes"), ("r3", "Maybe")),
            strict=True,
        )
    ]
    write(tmp_path, queries=(header, *rows))
    competition = open_table(
        corpus="queries.csv",
        labels="queries.csv",
        passage_id="answer",
        passage_texts=("reply",),
        label="answer",
    )
    data = competition.read(tmp_path)
    assert dict(zip(data.corpus.ids, data.corpus.values(), strict=True)) == {
        "r1": "Yes",
        "r2": "No",
        "r3": "Maybe",
    }
    assert [sorted(positions) for positions in data.qrels.values()] == [[0], [1], [2], [0]]
    write(tmp_path, queries=(header, *rows, ("c5", *rows[0][1:-1], "Other")))
    message = error_of(tmp_path, competition)
    assert message == "/queries.csv, row 5, column answer: the id r1 comes twice"


def changed_rows(table: Rows, row: int, column: int, cell: str) -> Rows:
    """Return a table with another cell."""
    cells = [list(line) for line in table]
    cells[row][column] = cell
    return tuple(map(tuple, cells))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"queries": changed_rows(QUERIES, 0, 1, "customer")},
            "/queries.csv, header, column client: is missing "
            "(found case, customer, kind, title, body)",
        ),
        (
            {"queries": changed_rows(QUERIES, 2, 0, "c10")},
            "/queries.csv, row 2, column case: the id c10 is also in row 1",
        ),
        (
            {"queries": changed_rows(QUERIES, 2, 0, "")},
            "/queries.csv, row 2, column case: the id is missing",
        ),
        (
            {"queries": changed_rows(QUERIES, 2, 0, " c2")},
            "/queries.csv, row 2, column case: the id ' c2' has spaces around it",
        ),
        (
            {"queries": changed_rows(QUERIES, 3, 1, " ")},
            "/queries.csv, row 3, case c_3, column client: the id is missing",
        ),
        (
            {"queries": changed_rows(QUERIES, 3, 2, "")},
            "/queries.csv, row 3, case c_3, column kind: the group is missing",
        ),
        (
            {"test": changed_rows(TEST, 1, 3, "")},
            "/test.csv, row 1, case c9, column title: the text is empty",
        ),
        (
            {"corpus": changed_rows(CORPUS, 3, 0, "a2")},
            "/corpus.csv, row 3, column article: the id a2 comes twice",
        ),
        (
            {"corpus": changed_rows(CORPUS, 1, 0, "a 2")},
            "/corpus.csv, row 1, column article: "
            "the id 'a 2' contains the separator of the submission",
        ),
        (
            {"corpus": changed_rows(CORPUS, 2, 1, "\n")},
            "/corpus.csv, row 2, article a10, column text: the text is empty",
        ),
        (
            {"labels": changed_rows(LABELS, 1, 1, "a10;a3")},
            "/labels.csv, row 1, case c10, column articles: no passage 'a3' in corpus.csv",
        ),
        (
            {"labels": changed_rows(LABELS, 1, 1, "a10;;a2")},
            "/labels.csv, row 1, case c10, column articles: "
            "an id is missing between two separators ';'",
        ),
        (
            {"labels": changed_rows(LABELS, 1, 1, "a10;a10")},
            "/labels.csv, row 1, case c10, column articles: the label a10 comes twice",
        ),
        (
            {"labels": changed_rows(LABELS, 1, 1, "a10, a2")},
            "/labels.csv, row 1, case c10, column articles: no passage 'a10, a2' in corpus.csv",
        ),
        (
            {"labels": changed_rows(LABELS, 2, 0, "c7")},
            "/labels.csv, row 2, column case: no query c7 in queries.csv",
        ),
        (
            {"labels": (LABELS[0], ("c10", ""))},
            "/labels.csv, column articles: no row has a label",
        ),
    ],
)
def test_an_unusual_cell_is_named_with_file_row_and_column(
    tmp_path: Path, changes: dict[str, Rows], problem: str
) -> None:
    assert error_of(write(tmp_path, **changes), open_table()) == problem


def test_an_id_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    message = error_of(write(tmp_path), open_table(passage_order="number"))
    assert message == "/corpus.csv, row 1, column article: 'a2' is not a whole number"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "labels.csv").unlink()
    assert error_of(tmp_path, open_table()) == "/labels.csv: no such file"


def test_two_ids_that_read_alike_are_refused(tmp_path: Path) -> None:
    queries = (*QUERIES, ("c-3", "ann", "web", "Other", ""))
    message = error_of(write(tmp_path, queries=queries), open_table())
    assert message == "/queries.csv, row 5, column case: the id c-3 reads like that of row 3"


@pytest.mark.parametrize("order", ["text", "number"])
def test_a_hidden_test_is_new_and_as_long_as_requested(tmp_path: Path, order: str) -> None:
    def numbered(table: Rows) -> Rows:
        if order == "text":
            return table
        names = {"c10": "10", "c2": "2", "c_3": "3", "c4": "4", "c9": "9", "c8": "8"}
        return tuple((names.get(row[0], row[0]), *row[1:]) for row in table)

    source = tmp_path / "source"
    source.mkdir()
    write(source, queries=numbered(QUERIES), test=numbered(TEST), labels=numbered(LABELS))
    competition = open_table(query_order=order)
    assert competition.write_hidden_test(source, tmp_path / "made", 20) == 20
    local, hidden = competition.read(source), competition.read(tmp_path / "made")
    assert (hidden.queries, hidden.corpus.ids) == (local.queries, local.corpus.ids)
    assert len(hidden.test) == 20
    local_queries = [*local.queries, *local.test]
    assert not {query.row for query in local_queries} & {query.row for query in hidden.test}
    assert not {query.unit for query in local_queries} & {query.unit for query in hidden.test}
    assert not {query.text for query in local_queries} & {query.text for query in hidden.test}


def test_a_split_by_a_group_that_is_missing_names_the_groups() -> None:
    competition = open_table()
    competition.check_split(SplitConfig(kind="kind"))
    competition.check_split(SplitConfig(kind="label"))
    with pytest.raises(BadConfig, match=r"split\.kind = 'subject': the competition has kind"):
        competition.check_split(SplitConfig(kind="subject"))


def test_the_folder_of_a_competition_is_found_once(tmp_path: Path) -> None:
    competition = open_table()
    with pytest.raises(BadData, match=r"files once under input/, found them 0"):
        competition.folder(tmp_path / "input")
    for name in ("one", "two"):
        folder = tmp_path / "input" / "competitions" / name
        folder.mkdir(parents=True)
        write(folder)
        if name == "one":
            assert competition.folder(tmp_path / "input") == folder
    with pytest.raises(BadData, match="found them 2"):
        competition.folder(tmp_path / "input")
