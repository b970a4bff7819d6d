"""A hidden test derived from the local queries: new ids and groups, all digits exchanged.

It measures time and memory and finds faults of a long run; it says nothing about a score.
"""

import csv
from itertools import count
from pathlib import Path

from parity.competition.lineage import normalize
from parity.competition.query import Query
from parity.competition.table.tables import TableReader
from parity.run import digest, files

_DIGITS = "0123456789"


def write(reader: TableReader, source: Path, target: Path, rows: int) -> int:
    """Write a competition with new queries to predict; the other files are the local ones.

    Args:
        reader: reader of the tables.
        source: folder of the competition's files.
        target: folder to create.
        rows: number of queries.

    Returns:
        The number of queries.
    """
    config = reader.config
    target.mkdir(parents=True)
    for name in reader.files:
        if name != config.test:
            files.link(source / name, target / name)
    local = [*reader.read_test(source), *reader.read(source).queries]
    local.sort(key=lambda query: digest.of_text(query.query_id))
    texts = {normalize(query.text) for query in local}
    ids = _new_ids(reader, local, rows)
    columns = tuple(
        dict.fromkeys(
            (
                config.query_id,
                *((config.unit,) if config.unit else ()),
                *config.groups,
                *config.query_texts,
            )
        )
    )
    with (target / config.test).open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        for number, query_id in enumerate(ids):
            query = local[number % len(local)]
            cells = {name: f"Unseen {group}" for name, group in query.groups.items()}
            cells |= _new_texts(query, number, texts)
            cells |= {config.query_id: query_id, **({config.unit: query_id} if config.unit else {})}
            writer.writerow([cells[column] for column in columns])
    return rows


def _new_ids(reader: TableReader, local: list[Query], rows: int) -> list[str]:
    """Return as many ids as `rows` that no local query has."""
    local_rows = {query.row for query in local}
    if reader.config.query_order == "number":
        first = 1 + max(map(int, local_rows))
        return [str(first + number) for number in range(rows)]
    candidates = (f"hidden{number}" for number in count())
    ids: list[str] = []
    while len(ids) < rows:
        if (candidate := next(candidates)) not in local_rows:
            ids.append(candidate)
    return ids


def _new_texts(query: Query, number: int, local_texts: set[str]) -> dict[str, str]:
    """Return the query's texts with its digits exchanged, and a number if that changes nothing."""
    digits = sorted(_DIGITS, key=lambda digit: digest.of_text(f"{number}/{digit}"))
    exchange = str.maketrans(_DIGITS, "".join(digits))
    texts = {name: text.translate(exchange) for name, text in query.fields.items()}
    if normalize(" ".join(texts.values())) in local_texts:
        first = next(iter(texts))
        texts[first] = f"{texts[first]} ({number})"
    return texts
