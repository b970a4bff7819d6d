"""The corpus: passages in the competition's order, and the labels that name them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from parity.competition.query import PassageId, Position, Qrels, QueryId
from parity.run import digest, files


class Corpus(Mapping[Position, str]):
    """All passages: position → text, and the id of each.

    Attributes:
        ids: passage ids by position.
    """

    def __init__(self, passages: Mapping[PassageId, str]) -> None:
        """Take the passages in the order given; two ids may share a text."""
        self.ids = tuple(passages)
        self._texts = tuple(passages.values())
        self._positions = {
            passage_id: Position(position) for position, passage_id in enumerate(self.ids)
        }

    def __getitem__(self, position: Position) -> str:
        """Return a passage's text."""
        if not 0 <= position < len(self._texts):
            raise KeyError(position)
        return self._texts[position]

    def __iter__(self) -> Iterator[Position]:
        """Iterate over the positions in order."""
        return map(Position, range(len(self._texts)))

    def __len__(self) -> int:
        """Return the number of passages."""
        return len(self._texts)

    def find(self, passage_id: str) -> Position | None:
        """Return the position of a passage id, or None where there is none."""
        return self._positions.get(PassageId(passage_id))

    def at(self, passage_id: str) -> Position:
        """Return the position of a passage id; a KeyError where there is none."""
        return self._positions[PassageId(passage_id)]

    def digest(self) -> str:
        """Return the digest of ids and texts in order."""
        return digest.of_value([self.ids, self._texts])


def write_corpus(path: Path, corpus: Corpus) -> None:
    """Write `corpus.jsonl` in the competition's order."""
    files.write_jsonl(
        path,
        ({"passage_id": corpus.ids[position], "text": text} for position, text in corpus.items()),
    )


def read_corpus(path: Path) -> Corpus:
    """Read what `write_corpus` wrote."""
    return Corpus({PassageId(row["passage_id"]): row["text"] for row in files.read_jsonl(path)})


def write_qrels(path: Path, qrels: Qrels, corpus: Corpus) -> None:
    """Write `qrels.jsonl`: query id and the ids of its right passages in the corpus' order."""
    files.write_jsonl(
        path,
        (
            {
                "query_id": query_id,
                "passage_ids": [corpus.ids[position] for position in sorted(positions)],
            }
            for query_id, positions in qrels.items()
        ),
    )


def read_qrels(path: Path, corpus: Corpus) -> Qrels:
    """Read what `write_qrels` wrote."""
    return {
        QueryId(row["query_id"]): frozenset(map(corpus.at, row["passage_ids"]))
        for row in files.read_jsonl(path)
    }
