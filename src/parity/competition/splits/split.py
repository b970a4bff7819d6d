"""A split: labeled questions in train and valid, each valid row marked seen or unseen.

One split names everything: what is trained on, mined in, shown in prompts and scored.
"""

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.competition.query import ANSWERS, MisconceptionId, Qrels, Query, QueryId
from parity.competition.splits import grouping, unseen_share
from parity.competition.splits.grouping import Parts, SplitShape, Unit
from parity.run import digest, files
from parity.run.config.run_file import SplitConfig
from parity.run.errors import BadConfig, BadData, Mismatch

_SUBJECTS = 6  # subjects told, the largest ones
_NAME = 46  # columns of a line's name


@dataclass(frozen=True, slots=True)
class Split:
    """A named parting of labeled questions.

    Attributes:
        name: also its file's name.
        kind: how it was cut.
        seed: of the cut.
        train: question ids, ascending.
        valid: question ids, ascending; none of `train`.
        unseen: valid rows none of whose right misconceptions is right in a row of train.
    """

    name: str
    kind: str
    seed: int
    train: tuple[int, ...]
    valid: tuple[int, ...]
    unseen: frozenset[QueryId]

    def __post_init__(self) -> None:
        """Refuse ids out of order, or on both sides."""
        for name, ids in (("train", self.train), ("valid", self.valid)):
            if list(ids) != sorted(set(ids)):
                raise BadData(f"split {self.name}: the ids of {name} are not ascending")
        if both := sorted(frozenset(self.train) & frozenset(self.valid)):
            raise BadData(f"split {self.name}: question {both[0]} is in train and in valid")

    def digest(self) -> str:
        """Return the digest of name, kind, seed, both sides and the marks."""
        return digest.of_value(self._record())

    def write(self, path: Path) -> None:
        """Write `splits/NAME.json`, its own digest included."""
        files.write_json(path, {**self._record(), "digest": self.digest()})

    @classmethod
    def read(cls, path: Path) -> "Split":
        """Read what `write` wrote.

        Raises:
            BadData: the file is no split.
            Mismatch: it was changed after it was written.
        """
        record = files.read_json(path)
        wanted = {*cls.__dataclass_fields__, "digest"}
        if not isinstance(record, dict) or record.keys() != wanted:
            raise BadData(f"{path}: not a split; it holds the keys {', '.join(sorted(wanted))}")
        split = cls(
            name=record["name"],
            kind=record["kind"],
            seed=record["seed"],
            train=tuple(record["train"]),
            valid=tuple(record["valid"]),
            unseen=frozenset(map(QueryId, record["unseen"])),
        )
        if split.digest() != record["digest"]:
            raise Mismatch(f"{path}: changed since it was made; run `./inv prepare` to cut it anew")
        return split

    def _record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "seed": self.seed,
            "train": list(self.train),
            "valid": list(self.valid),
            "unseen": sorted(self.unseen),
        }


def make(queries: Iterable[Query], qrels: Qrels, config: SplitConfig) -> Split:
    """Part the labeled questions as the run file wants it.

    Questions stay whole, and those with the same normalized text stay on one side. In folds, each
    question is valid in one fold and train in all others, with two exceptions: `random-full`, where
    a question that lacks a label is never valid; and `misconception`, where a question of train
    that shares a misconception with a valid one is on neither side of that fold, because a
    misconception held out must appear in no row of train (without folds this is needed only where
    the questions that share none with any other are too few).

    Args:
        queries: labeled rows, in any order; others are passed over.
        qrels: their right misconceptions.
        config: kind, seed, shares and folds; the share of valid is one of labeled rows.

    Raises:
        BadConfig: the kind leaves a side empty.
    """
    labeled = sorted(
        (query for query in queries if qrels.get(query.query_id)),
        key=lambda query: (query.question_id, query.answer),
    )
    questions = tuple(dict.fromkeys(query.question_id for query in labeled))
    if config.kind == "full":
        return Split(config.name, config.kind, config.seed, questions, (), frozenset())
    wanted = len(labeled) / config.folds if config.folds else config.valid * len(labeled)
    shape = SplitShape(config.folds, max(round(wanted), 1), config.seed)
    parts = _parts(grouping.units(labeled, qrels), labeled, shape, config)
    valid = tuple(question for question in questions if parts.get(question) == config.fold)
    train = tuple(question for question in questions if parts.get(question) != config.fold)
    if config.kind == "misconception":
        train = _disjoint(train, valid, labeled, qrels)
    if not valid or not train:
        side = "train" if valid else "valid"
        raise BadConfig(
            f"split.kind = {config.kind!r} leaves no question in {side} of {config.name}: "
            "choose another kind, share or number of folds"
        )
    unseen = _unseen(labeled, qrels, frozenset(train), frozenset(valid))
    return Split(config.name, config.kind, config.seed, train, valid, unseen)


def describe(split: Split, queries: Iterable[Query], qrels: Qrels) -> str:
    """Return what both sides hold, for a terminal of 78 columns.

    Args:
        split: what is told.
        queries: all labeled rows.
        qrels: their right misconceptions.
    """
    sides: dict[str, list[Query]] = {"train": [], "valid": [], "neither": []}
    side = {**dict.fromkeys(split.train, "train"), **dict.fromkeys(split.valid, "valid")}
    for query in queries:
        if qrels.get(query.query_id):
            sides[side.get(query.question_id, "neither")].append(query)
    train, valid, neither = sides.values()
    lines = [
        f"split {split.name}, seed {split.seed}, digest {split.digest()[:12]}",
        _line("", "train", "valid"),
        _line("rows", len(train), len(valid)),
        _line("questions", len(split.train), len(split.valid)),
        _line("labels per question", *(_per_question(rows) for rows in (train, valid))),
        _line("unseen rows", "", _share(len(split.unseen), len(valid))),
        *_mix(train, valid),
    ]
    if neither:
        left = len({query.question_id for query in neither})
        lines.append(f"on neither side, for a misconception of valid: {left} questions")
    return "\n".join(lines)


def _mix(train: Sequence[Query], valid: Sequence[Query]) -> list[str]:
    """Return lines on the subjects: how many, how alike both sides are, and the largest ones."""
    here, there = (Counter(query.subject_id for query in rows) for rows in (train, valid))
    names = {query.subject_id: query.subject for query in (*train, *valid)}
    both = here + there
    lines = [_line("subjects", len(here), len(there))]
    if train and valid:
        alike = sum(min(here[one] / len(train), there[one] / len(valid)) for one in sorted(both))
        lines.append(_line("subject mix in common", "", f"{100 * alike:.1f} %"))
    for one in sorted(both, key=lambda subject: (-both[subject], subject))[:_SUBJECTS]:
        name = "  " + textwrap.shorten(names[one], _NAME - 2, placeholder=" …")
        shares = (_share(here[one], len(train)), _share(there[one], len(valid)))
        lines.append(_line(name, *shares))
    return lines


def _line(name: str, train: object, valid: object) -> str:
    return f"{name:<{_NAME}}{train!s:>12}{valid!s:>18}".rstrip()


def _per_question(rows: Sequence[Query]) -> str:
    questions = len({query.question_id for query in rows})
    return f"{len(rows) / questions:.2f}" if questions else "–"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _parts(
    units: list[Unit], labeled: Sequence[Query], shape: SplitShape, config: SplitConfig
) -> Parts:
    """Return the part of each question that can be valid at all."""
    if config.kind == "unseen":
        return unseen_share.cut(units, shape, wanted=config.unseen)
    if config.kind == "misconception":
        return unseen_share.apart(units, shape)
    if config.kind == "construct":
        units = grouping.labeled_alike(units, labeled, lambda query: query.construct_id)
    elif config.kind == "subject":
        units = grouping.labeled_alike(units, labeled, lambda query: query.subject_id)
    elif config.kind == "random-full":
        rows = Counter(query.question_id for query in labeled)
        units = [
            unit
            for unit in units
            if all(rows[question] == len(ANSWERS) - 1 for question in unit.questions)
        ]
    return shape.place(units)


def _disjoint(
    train: tuple[int, ...], valid: tuple[int, ...], labeled: Sequence[Query], qrels: Qrels
) -> tuple[int, ...]:
    """Return the questions of train that share no misconception with a valid one."""
    held = _shown(labeled, qrels, frozenset(valid))
    mixed = {query.question_id for query in labeled if qrels[query.query_id] & held}
    return tuple(question for question in train if question not in mixed)


def _unseen(
    labeled: Sequence[Query], qrels: Qrels, train: frozenset[int], valid: frozenset[int]
) -> frozenset[QueryId]:
    known = _shown(labeled, qrels, train)
    return frozenset(
        query.query_id
        for query in labeled
        if query.question_id in valid and known.isdisjoint(qrels[query.query_id])
    )


def _shown(
    labeled: Iterable[Query], qrels: Qrels, questions: frozenset[int]
) -> frozenset[MisconceptionId]:
    """Return the misconceptions that are right in a row of these questions."""
    rows = (qrels[query.query_id] for query in labeled if query.question_id in questions)
    return frozenset[MisconceptionId]().union(*rows)
