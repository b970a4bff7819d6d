"""The corpus: misconception id → sentence, always in ascending order of id."""

from pathlib import Path

from parity.competition.query import Corpus, MisconceptionId
from parity.run import files


def write_corpus(path: Path, corpus: Corpus) -> None:
    """Write `corpus.jsonl` in ascending order of id."""
    files.write_jsonl(
        path, ({"misconception_id": key, "text": corpus[key]} for key in sorted(corpus))
    )


def read_corpus(path: Path) -> Corpus:
    """Read what `write_corpus` wrote."""
    return {MisconceptionId(row["misconception_id"]): row["text"] for row in files.read_jsonl(path)}
