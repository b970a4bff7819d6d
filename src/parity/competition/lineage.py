"""The lineage of an adapter: the units it was trained on, and whether a score is clean.

Two units with the same text count as one: training on one of them contaminates the other.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parity.competition.query import Query, UnitId
from parity.run import digest, files
from parity.run.errors import BadData, Contaminated

Groups = Mapping[UnitId, UnitId]
"""Unit → the first unit with the same normalized text."""
Status = Literal["clean", "contaminated"]

_NAMED = 5  # ids in an error message
_FOLDED = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc`", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033", '"'),
    "\u2212": "-",  # minus sign
    "\u22c5": "\u00b7",  # dot operator, middle dot
}
_SPACING = re.compile(r"\\[,;:! ]|\\(?:quad|qquad|left|right|displaystyle)(?![a-z])|~")
_FRACTION = re.compile(r"\\[dt]frac(?![a-z])")
_SHORT_FRACTION = re.compile(r"\\frac\s*(\w)\s*(\w)")
_OPERATORS = re.compile(r"\s*([-+=*/<>\u00b7\u00d7\u00f7])\s*")
_MATH = re.compile(r"\\\(.*?\\\)|\\\[.*?\\\]|\$[^$]*\$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Lineage:
    """The units (such as questions) that weights were trained on, their parents' included.

    Attributes:
        trained_on: ids of units; empty for weights trained on no unit of the competition, None if
            unknown, as for a downloaded adapter.
    """

    trained_on: frozenset[UnitId] | None

    def union(self, other: "Lineage") -> "Lineage":
        """Return the lineage of weights that come from both; unknown if either is unknown.

        >>> first, second = (Lineage(frozenset({UnitId(name)})) for name in "12")
        >>> sorted(first.union(second).trained_on or ())
        ['1', '2']
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

    def as_json(self) -> dict[str, list[UnitId] | None]:
        """Return `{"trained_on": [ids]}`, sorted as text, or null where unknown."""
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
        if not isinstance(ids, list) or any(type(unit) is not str for unit in ids):
            raise BadData(f"{path}: `trained_on` is neither null nor a list of ids as text")
        return cls(frozenset(ids))

    @classmethod
    def of_adapter(cls, folder: Path | None) -> "Lineage":
        """Return the lineage of an adapter's folder; unknown without a lineage file.

        Args:
            folder: folder of the adapter; None for the base model, which was trained on no unit.
        """
        if folder is None:
            return cls(frozenset())
        path = folder / "lineage.json"
        return cls.read(path) if path.is_file() else cls(None)

    def _ids(self) -> list[UnitId] | None:
        return None if self.trained_on is None else sorted(self.trained_on)


def normalize(text: str) -> str:
    r"""Return `text` such that trivially equal texts are equal.

    Width, case, white space, invisible characters, the kind of dash and quote, spacing and styles
    of LaTeX, and punctuation at the end make no difference.

    >>> normalize("Work out\n 1/2 ＋ X.")
    'work out 1/2+x'
    >>> normalize(r"Find \( \frac12 − 3 x \)") == normalize(r"Find \(\dfrac{1}{2}-3x\).")
    True
    """
    # Case folding can undo the composed form, so the text is composed again.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    visible = "".join(_FOLDED.get(sign, sign) for sign in folded if not _is_invisible(sign))
    plain = "".join("-" if unicodedata.category(sign) == "Pd" else sign for sign in visible)
    plain = _SPACING.sub(" ", _FRACTION.sub(r"\\frac", plain))
    plain = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", plain)
    plain = _OPERATORS.sub(r"\1", plain)
    plain = _MATH.sub(lambda match: "".join(match.group().split()), plain)
    return " ".join(plain.split()).rstrip(" .,:;!?")


def _is_invisible(sign: str) -> bool:
    """Return whether a character has no width, such as a soft hyphen or a byte order mark."""
    return unicodedata.category(sign) == "Cf"


def groups(queries: Iterable[Query]) -> dict[UnitId, UnitId]:
    """Return unit → the first unit with the same normalized text, in the competition's order.

    A unit without a text is a group of its own.

    Raises:
        BadData: a unit has two texts.
    """
    texts: dict[UnitId, str] = {}
    for query in sorted(queries, key=lambda query: query.order):
        if texts.setdefault(query.unit, query.identity) != query.identity:
            raise BadData(f"unit {query.unit} comes with two texts")
    first: dict[str, UnitId] = {}
    return {
        unit: first.setdefault(normalize(text), unit) if text else unit
        for unit, text in texts.items()
    }


def overlap(lineage: Lineage, units: Iterable[UnitId], *, groups: Groups) -> tuple[UnitId, ...]:
    """Return those of `units`, sorted as text, that were trained on, by id or by equal text.

    Returns all of them if the lineage is unknown.

    Args:
        lineage: units that the weights were trained on.
        units: units to score.
        groups: groups of all labeled units, trained and scored; a missing id is a group of its own.
    """
    units = sorted(set(units))
    if lineage.trained_on is None:
        return tuple(units)
    trained = {groups.get(unit, unit) for unit in lineage.trained_on}
    return tuple(unit for unit in units if groups.get(unit, unit) in trained)


def guard(
    lineage: Lineage,
    units: Iterable[UnitId],
    *,
    groups: Groups,
    accept_contaminated: bool = False,
) -> Status:
    """Return whether a score on `units` is clean.

    Args:
        lineage: units that the weights were trained on.
        units: units to score.
        groups: as for `overlap`.
        accept_contaminated: return "contaminated" instead of raising.

    Raises:
        Contaminated: some units were trained on, or the lineage is unknown; the message counts them
            and names the first.
    """
    scored = frozenset(units)
    trained = overlap(lineage, scored, groups=groups)
    if not trained and lineage.trained_on is not None:
        return "clean"
    if accept_contaminated:
        return "contaminated"
    if lineage.trained_on is None:
        raise Contaminated(
            f"lineage unknown: any of the {len(scored)} units to score may have been trained "
            "on; --accept-contaminated scores them, outside tables and charts"
        )
    names = ", ".join(map(str, trained[:_NAMED])) + (", …" if len(trained) > _NAMED else "")
    raise Contaminated(
        f"{len(trained)} of {len(scored)} units to score were trained on (by id or by equal "
        f"text: {names}); --accept-contaminated scores them, outside tables and charts"
    )
