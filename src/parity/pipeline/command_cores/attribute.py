"""Attribute the gap between two scores to layers, by swapping one layer after the other.

A CV is scored again under the settings stored with its record, with one layer after the other taken
from B, by the same code as `eval`. Cached embeddings make repeated scores cheap.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.analysis.compare import attribution, layer_values
from parity.analysis.compare.attribution import Attribution, Swap, Values
from parity.analysis.compare.evidence_record import EvidenceRecord
from parity.competition.query import QueryId, unit_of
from parity.competition.scoring.row_metrics import Metric, metric_of
from parity.pipeline import evidence_lookup, registry, replay
from parity.run import files, layers, ledger
from parity.run.errors import BadConfig, ParityError, StaleInput
from parity.run.experiment import Run, data_folder
from parity.run.paths import RunPaths

_WITHOUT_ROWS = {
    "rehearsal": "a rehearsal ranks a generated test",
    "image": "the image ranks a generated test",
    "kernel": "the kernel ran on Kaggle, on rows without labels here",
}
"""Kind of evidence → why it has no scored rows."""


def attribute(names: Sequence[str], run: Run | None = None) -> dict[str, Any]:
    """Print and return the parts of the gap between two scores.

    Args:
        names: two records as `reconcile` takes them; the second may be a leaderboard score.
        run: run that references to models belong to.

    Raises:
        BadConfig: a record does not exist, or is not a CV to start from.
        StaleInput: files of a CV are missing.
    """
    if len(names) != 2:
        raise BadConfig(f"found {len(names)} records to attribute a gap to. Name two")
    data = data_folder()
    records = ledger.read(RunPaths(data, "").ledger)
    a = evidence_lookup.find_record(names[0], data, records, run)
    if evidence_lookup.NUMBER.fullmatch(names[1]):
        result, name, target = of_number(a, float(names[1]), data), names[1], names[1]
    else:
        b = evidence_lookup.find_record(names[1], data, records, run)
        number = layer_values.value(b.evidence.score)
        is_board = b.evidence.kind in ledger.BOARDS and number is not None
        result = of_number(a, number or 0.0, data) if is_board else between(a, b, data)
        name, target = b.name, f"{b.name} ({b.id[:12]})"
    print(attribution.text(result, a.name, name))
    _store(RunPaths(data, a.evidence.run), f"{a.name} ({a.id[:12]}) → {target}", result)
    return {"attribution": result.as_json(), "a": a.id, "b": name}


def _store(workspace: RunPaths, pair: str, result: Attribution) -> None:
    """Write an attribution for the report of A's run; it replaces an older one of the pair."""
    if workspace.root.is_dir():  # not for a record from another machine
        path = workspace.attributions
        stored = files.read_json(path) if path.is_file() else {}
        files.write_json(path, {**stored, pair: result.as_json()})


def of_number(a: EvidenceRecord, number: float, data: Path) -> Attribution:
    """Return the part of the unseen share in the gap between a CV and a leaderboard score.

    Raises:
        BadConfig: the record is not a CV.
        StaleInput: its ranking or labels are missing.
    """
    artifacts = evidence_lookup.load_artifacts(a, a, data, (), with_text=False)
    values, metric = _recorded(a, data)
    return attribution.of_number(
        values, artifacts.unseen, number, artifacts.scoring, metric=metric.title
    )


def between(a: EvidenceRecord, b: EvidenceRecord, data: Path) -> Attribution:
    """Return the parts of the gap between two CVs; its notes name layers that were not swapped.

    Raises:
        BadConfig: a record is not a CV, or they have no common row.
        StaleInput: a ranking or its labels are missing.
    """
    (values_a, metric_a), (values_b, metric_b) = (_recorded(record, data) for record in (a, b))
    metric = replace(metric_a, k=min(metric_a.k, metric_b.k))
    rows = values_a.keys() & values_b.keys()
    if not rows:
        raise BadConfig(
            f"{a.name} and {b.name} have no scored row in common. Give both run files the same "
            "[split] and prepare again",
            fix=("prepare",),
        )
    notes = _unswappable(a, b)
    swaps: list[Swap] = []
    if a.evidence.layers.get("data") != b.evidence.layers.get("data"):
        notes.append("nothing was scored again: the competition's files and rows differ")
    else:
        try:
            units = frozenset(unit_of(row) for row in rows)
            start, end = (replay.load_replay(record, data, units) for record in (a, b))
            swaps = list(_swaps(start, end, metric, notes.append))
        except ParityError as error:
            reason = registry.describe_error(error)
            notes.append(f"nothing was scored again, so no layer has a part of its own: {reason}")
    if metric_a.k > metric.k:
        shallow = evidence_lookup.row_precisions(a, data, metric.k)
        swaps = [*_depth_swaps(values_a, shallow, rows, (metric_a, metric)), *swaps]
    if metric_b.k > metric.k:
        shallow = evidence_lookup.row_precisions(b, data, metric.k)
        swaps += _depth_swaps(shallow, values_b, rows, (metric, metric_b))
    scoring = evidence_lookup.load_artifacts(a, b, data, (), with_text=False).scoring
    result = attribution.attribute(values_a, values_b, swaps, scoring, metric=metric.title)
    return replace(result, notes=tuple(notes))


def _depth_swaps(
    before: Values, after: Values, rows: Collection[QueryId], pair: tuple[Metric, Metric]
) -> list[Swap]:
    """Return the swap from one depth of the metric to another; the ranking stays the same."""
    start, end = ({row: values[row] for row in rows} for values in (before, after))
    return [Swap("", "", start), Swap("metric", f"{pair[0].title} to {pair[1].title}", end)]


def _recorded(record: EvidenceRecord, data: Path) -> tuple[Values, Metric]:
    """Return the score of each validation row of a CV, and its metric."""
    evidence = record.evidence
    if evidence.kind != "cv":
        reason = _WITHOUT_ROWS.get(evidence.kind, "a leaderboard has no scores of rows")
        raise BadConfig(f"{record.name} has no scored rows: {reason}. Name a CV, RUN/round-N/eval")
    values = evidence_lookup.row_precisions(record, data)
    if not values:
        raise StaleInput(
            f"the ranking of the validation rows of {record.name}, or their labels, are missing",
            fix=replay.evaluation_words(evidence),
        )
    return values, metric_of(evidence.score)


def _unswappable(a: EvidenceRecord, b: EvidenceRecord) -> list[str]:
    """Return a note on layers that differ but cannot be swapped on this machine."""
    x, y = layer_values.values(a), layer_values.values(b)
    names = layers.differences(x, y, ("corpus", "packages"))
    return [f"in the remainder, as they cannot be swapped: {', '.join(names)}"] if names else []


def _swaps(
    a: replay.Replay, b: replay.Replay, metric: Metric, note: Callable[[str], None]
) -> Iterator[Swap]:
    """Score A, then swap and score each layer that differs; a failing swap joins the next one."""
    if not any(replay.differs(layer, a, b) for layer in layers.SWAPPABLE):
        note("no layer that can be swapped differs, so nothing was scored again")
        return
    yield Swap("", "", replay.score(a, metric))
    state = a
    for layer in layers.SWAPPABLE:
        if not replay.differs(layer, state, b):  # an adapter comes with its base
            continue
        change, state = replay.describe(layer, state, b), replay.swap(layer, state, b)
        try:
            yield Swap(layer, change, replay.score(state, metric))
        except ParityError as error:
            reason = registry.describe_error(error)
            note(f"{layer} cannot be swapped alone, so its part is in the next one: {reason}")
