"""One CSV file of the competition, read as text, with errors that name file, row and column."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from parity.run import digest
from parity.run.errors import BadData

# pandas writes `1672.0` where a column of ids has blanks; 18 digits still fit an int64.
_INTEGER = re.compile(r"([0-9]{1,18})(?:\.0+)?", re.ASCII)
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class CsvTable:
    """The cells of a CSV file, as they are.

    Attributes:
        path: the file.
        key: the column whose cell names a row to a person.
        columns: name → cells from top to bottom, the header left out.
        sha256: digest of the file's bytes.
    """

    path: Path
    key: str
    columns: dict[str, list[str]]
    sha256: str

    def fault(self, column: str, index: int, problem: str) -> BadData:
        """Return the error for the cell of `column` at `index` (from 0)."""
        name = self.columns[self.key][index].strip() if column != self.key else ""
        row = f"row {index + 1}, {self.key} {name}" if name else f"row {index + 1}"
        return BadData(f"{self.path}, {row}, column {column}: {problem}")

    def integers(self, column: str) -> list[int]:
        """Return a column of ids; `1672.0` is 1672.

        Raises:
            BadData: a cell is empty or not a whole number.
        """
        return [self.integer(column, index) for index in range(len(self.columns[column]))]

    def integer(self, column: str, index: int) -> int:
        """Return the id in one cell.

        Raises:
            BadData: the cell is empty or not a whole number.
        """
        text = self.columns[column][index]
        if not text.strip():
            raise self.fault(column, index, "the id is missing")
        match = _INTEGER.fullmatch(text)
        if match is None:
            raise self.fault(column, index, f"{_quoted(text)} is not a whole number")
        return int(match[1])

    def distinct(self, column: str) -> list[int]:
        """Return a column of ids that all differ.

        Raises:
            BadData: as `integers`, or an id comes twice.
        """
        ids = self.integers(column)
        first: dict[int, int] = {}
        for index, value in enumerate(ids):
            if first.setdefault(value, index) != index:
                problem = f"the id {value} is also in row {first[value] + 1}"
                raise self.fault(column, index, problem)
        return ids

    def texts(self, column: str) -> list[str]:
        """Return a column of texts, every character unchanged.

        Raises:
            BadData: a text is empty or only white space.
        """
        for index, text in enumerate(self.columns[column]):
            if not text.strip():
                raise self.fault(column, index, "the text is empty")
        return self.columns[column]


def read(path: Path, columns: tuple[str, ...]) -> CsvTable:
    """Read a CSV that has at least `columns`, the first of which names a row to a person.

    Raises:
        BadData: no such file, not UTF-8, empty, broken quotes, or a column is missing or doubled.
    """
    if not path.is_file():
        raise BadData(f"{path}: no such file")
    data = path.read_bytes()
    body = data.removeprefix(_BOM)
    if not body.strip():
        raise BadData(f"{path}: the file is empty")
    rows = _parse(path, body, "utf-8") if _is_text(body) else _refuse_encoding(path, body)
    header = rows[0]
    for column in columns:
        if header.count(column) != 1:
            problem = "is missing" if column not in header else "comes twice"
            raise BadData(f"{path}, header, column {column}: {problem} (found {', '.join(header)})")
    if len(rows) == 1:
        raise BadData(f"{path}: the file has a header but no row")
    cells = dict(zip(header, map(list, zip(*rows[1:], strict=True)), strict=True))
    return CsvTable(path, columns[0], cells, digest.of_bytes(data))


def check_columns(table: CsvTable, columns: tuple[str, ...]) -> None:
    """Check that a file has exactly `columns`, in this order.

    Raises:
        BadData: it has others too, or another order.
    """
    names = tuple(table.columns)
    if names != columns:
        strange = next((name for name in names if name not in columns), names[0])
        raise BadData(
            f"{table.path}, header, column {strange}: the columns must be exactly "
            f"{','.join(columns)} (found {','.join(names)})"
        )


def _parse(path: Path, data: bytes, encoding: str) -> list[list[str]]:
    try:
        frame = pd.read_csv(
            io.BytesIO(data),
            header=None,  # so that doubled names are seen and long rows are refused
            index_col=False,
            dtype=str,
            keep_default_na=False,  # the texts NA and null are texts
            encoding=encoding,
        )
    except pd.errors.ParserError as error:
        raise BadData(_broken(path, str(error))) from error
    rows: list[list[str]] = frame.to_numpy().tolist()
    return rows


def _broken(path: Path, message: str) -> str:
    """Return the message for a parser error.

    pandas counts lines from 1 and rows from 0, the header included.
    """
    if match := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", message):
        expected, line, saw = map(int, match.groups())
        return f"{path}, row {line - 1}: {saw} columns where the header has {expected}"
    if match := re.search(r"EOF inside string starting at row (\d+)", message):
        return f"{path}, row {match[1]}: a quotation mark is opened and never closed"
    return f"{path}: not a CSV file ({' '.join(message.split())})"


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in data  # pandas would drop what follows one


def _refuse_encoding(path: Path, data: bytes) -> list[list[str]]:
    """Name the first cell that is not UTF-8.

    Latin-1 maps every byte to a character and leaves commas, quotes and newlines as they are, so
    the file can be parsed first and its cells checked one by one.
    """
    rows = _parse(path, data.replace(b"\0", b"\xff"), "latin-1")
    for number, row in enumerate(rows):
        for column, cell in zip(rows[0], row, strict=True):
            if not _is_text(cell.encode("latin-1")):
                location = f"row {number}, column {column}" if number else "header"
                raise BadData(f"{path}, {location}: not UTF-8; save the file with that encoding")
    raise BadData(f"{path}: not UTF-8; save the file with that encoding")


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
