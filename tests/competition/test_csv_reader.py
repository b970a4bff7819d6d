"""A CSV is read unchanged, and each error names row and column."""

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.competition import csv_reader
from parity.run import digest
from parity.run.errors import BadData

# Everything a text may hold in UTF-8 but NUL, which no CSV file of Kaggle's has.
TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))


def written(folder: Path, data: bytes) -> Path:
    path = folder / "file.csv"
    path.write_bytes(data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BadData) as error:
        csv_reader.read(path, ("Id", "Name"))
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_every_text_survives(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("sheet") / "file.csv"
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, quoting=csv.QUOTE_ALL)
        writer.writerow(["Id", "Name"])
        writer.writerows([str(index), text] for index, text in enumerate(texts))
    assert csv_reader.read(path, ("Id", "Name")).columns["Name"] == texts


def test_texts_that_look_like_nothing_stay_texts(tmp_path: Path) -> None:
    names = ["NA", "null", "None", "nan", "True", "1.50", "#N/A"]
    data = "Id,Name\n" + "".join(f"{index},{name}\n" for index, name in enumerate(names))
    assert csv_reader.read(written(tmp_path, data.encode()), ("Id", "Name")).texts("Name") == names


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbfId,Name\r\n7,x\r\n")
    assert csv_reader.read(path, ("Id", "Name")).integers("Id") == [7]


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbfId,Name\r\n7,x\r\n")
    assert csv_reader.read(path, ("Id", "Name")).sha256 == digest.of_file(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", ": the file is empty"),
        (b" \r\n\r\n", ": the file is empty"),
        (b"Id,Name\r\n", ": the file has a header but no row"),
        (b"Id,Title\n1,x\n", ", header, column Name: is missing (found Id, Title)"),
        (b"Id;Name\n1;x\n", ", header, column Id: is missing (found Id;Name)"),
        (b"Id,Name,Name\n1,x,y\n", ", header, column Name: comes twice (found Id, Name, Name)"),
        (b"Id,Name\n1,x\n2,x,y\n", ", row 2: 3 columns where the header has 2"),
        (b'Id,Name\n1,"x\ny"\n2,"x\n', ", row 2: a quotation mark is opened and never closed"),
        (b"Id,Name\n1,x\n2,caf\xe9\n", ", row 2, column Name: not UTF-8"),
        (b"Id,Na\xefme\n1,x\n", ", header: not UTF-8"),
        (b"Id,Name\n1,x\0y\n", ", row 1, column Name: not UTF-8"),
        ("Id,Name\n1,x\n".encode("utf-16"), ", header: not UTF-8"),
    ],
)
def test_a_broken_file_is_refused_with_row_and_column(
    tmp_path: Path, data: bytes, message: str
) -> None:
    assert refusal(written(tmp_path, data)).startswith(message)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "file.csv") == ": no such file"


def test_ids_may_be_written_as_pandas_writes_them(tmp_path: Path) -> None:
    path = written(tmp_path, b"Id,Name\n1672.0,x\n3,y\n5.00,z\n")
    assert csv_reader.read(path, ("Id", "Name")).distinct("Id") == [1672, 3, 5]


@pytest.mark.parametrize("text", ["1.5", "-1", "x", "1e3", "0x1", "1 2", "9" * 19, "²", "nan"])
def test_an_id_that_is_not_a_whole_number_is_refused(tmp_path: Path, text: str) -> None:
    sheet = csv_reader.read(written(tmp_path, f"Id,Name\n1,x\n{text},y\n".encode()), ("Id", "Name"))
    with pytest.raises(BadData, match=r"row 2, column Id: '.+' is not a whole number"):
        sheet.integers("Id")


def test_equal_ids_are_named_with_both_rows(tmp_path: Path) -> None:
    sheet = csv_reader.read(written(tmp_path, b"Id,Name\n1,x\n2,y\n1.0,z\n"), ("Id", "Name"))
    with pytest.raises(BadData, match="row 3, column Id: the id 1 is also in row 1"):
        sheet.distinct("Id")


def test_a_blank_text_is_named_with_the_rows_key(tmp_path: Path) -> None:
    sheet = csv_reader.read(written(tmp_path, b"Id,Name\n1,x\n7,  \n"), ("Id", "Name"))
    with pytest.raises(BadData, match="row 2, Id 7, column Name: the text is empty"):
        sheet.texts("Name")


def test_other_columns_are_refused_in_an_exact_header(tmp_path: Path) -> None:
    sheet = csv_reader.read(written(tmp_path, b"Id,Name,Score\n1,x,2\n"), ("Id", "Name"))
    with pytest.raises(BadData, match="column Score: the columns must be exactly Id,Name"):
        csv_reader.check_columns(sheet, ("Id", "Name"))
