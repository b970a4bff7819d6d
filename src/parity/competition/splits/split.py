"""A split: labeled units in train and valid, each valid row marked seen or unseen.

Training, mining, prompts and scores of a run all use the same split.
"""

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.competition.query import Position, Qrels, Query, QueryId, UnitId
from parity.competition.splits import grouping, unseen_share
from parity.competition.splits.grouping import Parts, SplitShape, UnitBlock
from parity.run import digest, files
from parity.run.config.split import SplitConfig
from parity.run.errors import BadConfig, BadData, Mismatch

_TOPICS = 6  # topics printed, the largest ones
_NAME = 46  # columns of a line's name


@dataclass(frozen=True, slots=True)
class Split:
    """A named split of the labeled units.

    Attributes:
        name: also its file's name.
        kind: kind of split in the run file.
        seed: seed of the split.
        train: units in the competition's order.
        valid: units in the competition's order, disjoint from `train`.
        unseen: valid rows whose right passages are right in no row of train.
    """

    name: str
    kind: str
    seed: int
    train: tuple[UnitId, ...]
    valid: tuple[UnitId, ...]
    unseen: frozenset[QueryId]

    def __post_init__(self) -> None:
        """Refuse units that come twice, or on both sides."""
        for name, ids in (("train", self.train), ("valid", self.valid)):
            if len(ids) != len(set(ids)):
                raise BadData(f"split {self.name}: a unit comes twice in {name}")
        if shared := sorted(frozenset(self.train) & frozenset(self.valid)):
            raise BadData(f"split {self.name}: unit {shared[0]} is in train and in valid")

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
            BadData: the file is not a split.
            Mismatch: it was changed after it was written.
        """
        record = files.read_json(path)
        keys = {*cls.__dataclass_fields__, "digest"}
        if not isinstance(record, dict) or record.keys() != keys:
            raise BadData(f"{path}: not a split; it holds the keys {', '.join(sorted(keys))}")
        split = cls(
            name=record["name"],
            kind=record["kind"],
            seed=record["seed"],
            train=tuple(record["train"]),
            valid=tuple(record["valid"]),
            unseen=frozenset(map(QueryId, record["unseen"])),
        )
        if split.digest() != record["digest"]:
            raise Mismatch(f"{path} has changed since it was written", fix=("prepare",))
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
    """Split the labeled units as the run file describes.

    Units stay whole, and those with the same normalized text stay on one side. In folds, each
    unit is valid in one fold and train in all others, with two exceptions: `random-full`, where
    a unit with an unlabeled row is never valid; and `label`, where a unit of train that shares a
    label with a valid one is on neither side of that fold, because a label held out must appear
    in no row of train (without folds this is needed only where the units that share no label with
    any other are too few).

    Args:
        queries: labeled rows, in any order; unlabeled ones are skipped.
        qrels: their right passages.
        config: kind, seed, shares and folds; the share of valid is one of labeled rows.

    Raises:
        BadConfig: the kind leaves a side empty.
    """
    labeled = sorted(
        (query for query in queries if qrels.get(query.query_id)),
        key=lambda query: query.order,
    )
    units = tuple(dict.fromkeys(query.unit for query in labeled))
    if config.kind == "full":
        return Split(config.name, config.kind, config.seed, units, (), frozenset())
    target = len(labeled) / config.folds if config.folds else config.valid * len(labeled)
    shape = SplitShape(config.folds, max(round(target), 1), config.seed)
    parts = _parts(grouping.blocks(labeled, qrels), labeled, shape, config)
    valid = tuple(unit for unit in units if parts.get(unit) == config.fold)
    train = tuple(unit for unit in units if parts.get(unit) != config.fold)
    if config.kind == "label":
        train = _disjoint(train, valid, labeled, qrels)
    if not valid or not train:
        side = "train" if valid else "valid"
        raise BadConfig(
            f"split.kind = {config.kind!r} leaves no unit in {side} of {config.name}: "
            "choose another kind, share or number of folds"
        )
    unseen = _unseen(labeled, qrels, frozenset(train), frozenset(valid))
    return Split(config.name, config.kind, config.seed, train, valid, unseen)


def describe(split: Split, queries: Iterable[Query], qrels: Qrels) -> str:
    """Return a description of both sides, for a terminal of 78 columns.

    Args:
        split: split to describe.
        queries: all labeled rows.
        qrels: their right passages.
    """
    sides: dict[str, list[Query]] = {"train": [], "valid": [], "neither": []}
    side = {**dict.fromkeys(split.train, "train"), **dict.fromkeys(split.valid, "valid")}
    for query in queries:
        if qrels.get(query.query_id):
            sides[side.get(query.unit, "neither")].append(query)
    train, valid, neither = sides.values()
    lines = [
        f"split {split.name}, seed {split.seed}, digest {split.digest()[:12]}",
        _line("", "train", "valid"),
        _line("rows", len(train), len(valid)),
        _line("units", len(split.train), len(split.valid)),
        _line("labels per unit", *(_per_unit(rows) for rows in (train, valid))),
        _line("unseen rows", "", _share(len(split.unseen), len(valid))),
        *_mix(train, valid),
    ]
    if neither:
        dropped = len({query.unit for query in neither})
        lines.append(f"on neither side, because of a label in valid: {dropped} units")
    return "\n".join(lines)


def _mix(train: Sequence[Query], valid: Sequence[Query]) -> list[str]:
    """Return lines on the topics: how many, how alike both sides are, and the largest ones."""
    kind = next((kind for query in (*train, *valid) for kind in query.groups), "")
    if not kind:
        return []
    train_topics, valid_topics = (Counter(query.topic for query in rows) for rows in (train, valid))
    names = {query.topic: query.fields.get(kind, query.topic) for query in (*train, *valid)}
    topics = train_topics + valid_topics
    lines = [_line(f"{kind}s", len(train_topics), len(valid_topics))]
    if train and valid:
        alike = sum(
            min(train_topics[topic] / len(train), valid_topics[topic] / len(valid))
            for topic in sorted(topics)
        )
        lines.append(_line(f"{kind} mix in common", "", f"{100 * alike:.1f} %"))
    for topic in sorted(topics, key=lambda topic: (-topics[topic], len(topic), topic))[:_TOPICS]:
        name = "  " + textwrap.shorten(names[topic], _NAME - 2, placeholder=" …")
        shares = (_share(train_topics[topic], len(train)), _share(valid_topics[topic], len(valid)))
        lines.append(_line(name, *shares))
    return lines


def _line(name: str, train: object, valid: object) -> str:
    return f"{name:<{_NAME}}{train!s:>12}{valid!s:>18}".rstrip()


def _per_unit(rows: Sequence[Query]) -> str:
    units = len({query.unit for query in rows})
    return f"{len(rows) / units:.2f}" if units else "–"


def _share(part: int, total: int) -> str:
    return f"{100 * part / total:.1f} %" if total else "–"


def _parts(
    blocks: list[UnitBlock], labeled: Sequence[Query], shape: SplitShape, config: SplitConfig
) -> Parts:
    """Return the part of each unit that can be valid at all."""
    if config.kind == "unseen":
        return unseen_share.cut(blocks, shape, share=config.unseen)
    if config.kind == "label":
        return unseen_share.separate_labels(blocks, shape)
    if config.is_by_group:
        blocks = grouping.joined_by_group(blocks, labeled, config.kind)
    elif config.kind == "random-full":
        rows = Counter(query.unit for query in labeled)
        size = {query.unit: query.unit_size for query in labeled}
        blocks = [
            block for block in blocks if all(rows[unit] == size[unit] for unit in block.units)
        ]
    return shape.assign(blocks)


def _disjoint(
    train: tuple[UnitId, ...], valid: tuple[UnitId, ...], labeled: Sequence[Query], qrels: Qrels
) -> tuple[UnitId, ...]:
    """Return the units of train that share no label with a valid one."""
    valid_labels = _shown(labeled, qrels, frozenset(valid))
    mixed = {query.unit for query in labeled if qrels[query.query_id] & valid_labels}
    return tuple(unit for unit in train if unit not in mixed)


def _unseen(
    labeled: Sequence[Query], qrels: Qrels, train: frozenset[UnitId], valid: frozenset[UnitId]
) -> frozenset[QueryId]:
    train_labels = _shown(labeled, qrels, train)
    return frozenset(
        query.query_id
        for query in labeled
        if query.unit in valid and train_labels.isdisjoint(qrels[query.query_id])
    )


def _shown(labeled: Iterable[Query], qrels: Qrels, units: frozenset[UnitId]) -> frozenset[Position]:
    """Return the passages that are right in a row of these units."""
    rows = (qrels[query.query_id] for query in labeled if query.unit in units)
    return frozenset[Position]().union(*rows)
