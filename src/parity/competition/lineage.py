"""What an adapter was trained on, and whether a score on given questions is still a score.

Two questions with the same text are one question here: to have trained on either is to know both.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parity.competition.query import Query
from parity.run import digest, files
from parity.run.errors import BadData, Contaminated

Groups = Mapping[int, int]
"""Question id → the smallest question id with the same normalized text."""
Status = Literal["clean", "contaminated"]

_NAMED = 5  # ids that a refusal names


@dataclass(frozen=True, slots=True)
class Lineage:
    """The questions that weights were trained on, their parents' included.

    Attributes:
        trained_on: question ids; empty for weights that saw none of the competition's, None where
            nobody knows, as for a downloaded adapter.
    """

    trained_on: frozenset[int] | None

    def union(self, other: "Lineage") -> "Lineage":
        """Return the lineage of weights that come from both; one unknown makes it unknown.

        >>> Lineage(frozenset({1})).union(Lineage(frozenset({2}))).trained_on
        frozenset({1, 2})
        """
        if self.trained_on is None or other.trained_on is None:
            return Lineage(None)
        return Lineage(self.trained_on | other.trained_on)

    def digest(self) -> str:
        """Return the digest of the sorted ids."""
        return digest.of_value(self._ids())

    def write(self, path: Path) -> None:
        """Write what `as_json` returns."""
        files.write_json(path, self.as_json())

    def as_json(self) -> dict[str, list[int] | None]:
        """Return `{"trained_on": [ids]}`, ascending, or null where unknown."""
        return {"trained_on": self._ids()}

    @classmethod
    def read(cls, path: Path) -> "Lineage":
        """Read what `write` wrote.

        Raises:
            BadData: the file holds anything else.
        """
        record = files.read_json(path)
        if not isinstance(record, dict) or record.keys() != {"trained_on"}:
            raise BadData(f"{path}: a lineage holds the key `trained_on` alone")
        ids = record["trained_on"]
        if ids is None:
            return cls(None)
        if not isinstance(ids, list) or any(type(question_id) is not int for question_id in ids):
            raise BadData(f"{path}: `trained_on` is neither null nor a list of question ids")
        return cls(frozenset(ids))

    def _ids(self) -> list[int] | None:
        return None if self.trained_on is None else sorted(self.trained_on)


def normalize(text: str) -> str:
    r"""Return `text` such that trivially equal texts are equal: width, case and space aside.

    >>> normalize("Work out\n 1/2 ＋ X")
    'work out 1/2 + x'
    """
    # Folding can undo the composed form, so that it is restored afterwards.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def groups(queries: Iterable[Query]) -> dict[int, int]:
    """Return question id → the smallest question id with the same normalized text, by id.

    Raises:
        BadData: one question comes with two texts.
    """
    texts: dict[int, str] = {}
    for query in queries:
        if texts.setdefault(query.question_id, query.question) != query.question:
            raise BadData(f"question {query.question_id} comes with two texts")
    first: dict[str, int] = {}
    return {
        question_id: first.setdefault(normalize(texts[question_id]), question_id)
        for question_id in sorted(texts)
    }


def overlap(lineage: Lineage, question_ids: Iterable[int], *, groups: Groups) -> tuple[int, ...]:
    """Return those of `question_ids`, ascending, that were trained on, by id or by equal text.

    All of them where the lineage is unknown: any may have been.

    Args:
        lineage: what the weights were trained on.
        question_ids: what is to be scored.
        groups: of all labeled questions, trained and scored; an id that it lacks stands alone.
    """
    asked = sorted(set(question_ids))
    if lineage.trained_on is None:
        return tuple(asked)
    known = {groups.get(question_id, question_id) for question_id in lineage.trained_on}
    return tuple(one for one in asked if groups.get(one, one) in known)


def guard(
    lineage: Lineage,
    question_ids: Iterable[int],
    *,
    groups: Groups,
    accept_contaminated: bool = False,
) -> Status:
    """Return whether a score on `question_ids` is clean; refuse one that is not.

    Args:
        lineage: what the weights were trained on.
        question_ids: what is to be scored.
        groups: as for `overlap`.
        accept_contaminated: return "contaminated" where the score would be refused.

    Raises:
        Contaminated: some were trained on, or nobody knows; says how many and names the first.
    """
    asked = frozenset(question_ids)
    known = overlap(lineage, asked, groups=groups)
    if not known and lineage.trained_on is not None:
        return "clean"
    if accept_contaminated:
        return "contaminated"
    if lineage.trained_on is None:
        raise Contaminated(
            f"lineage unknown: any of the {len(asked)} questions to score may have been trained "
            "on; --accept-contaminated scores them, outside tables and charts"
        )
    named = ", ".join(map(str, known[:_NAMED])) + (", …" if len(known) > _NAMED else "")
    raise Contaminated(
        f"{len(known)} of {len(asked)} questions to score were trained on (by id or by equal "
        f"text: {named}); --accept-contaminated scores them, outside tables and charts"
    )
