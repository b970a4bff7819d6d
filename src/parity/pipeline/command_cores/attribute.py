"""12. Two scores → the part of their gap that each layer makes, by swapping one after the other.

A CV is scored anew under the settings kept beside its record, with one layer after the other taken
from B, by the same lines as `eval`; kept embeddings make what was scored before cheap.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parity.analysis.compare import attribution, layer_values
from parity.analysis.compare.attribution import Attribution, Step, Values
from parity.analysis.compare.evidence_record import EvidenceRecord
from parity.competition.query import QueryId
from parity.competition.scoring import metrics
from parity.competition.scoring.bootstrap import question_of
from parity.competition.splits.split import Split
from parity.pipeline import dataset, encoder_loading, evaluation, evidence_lookup
from parity.pipeline.dataset import Dataset
from parity.pipeline.evidence import SETTINGS
from parity.retrieval.models import adapter as adapters
from parity.run import files, ledger
from parity.run import manifest as manifests
from parity.run.config import run_file as configs
from parity.run.config.run_file import Config
from parity.run.digest import of_value
from parity.run.errors import BadConfig, ParityError, StaleInput
from parity.run.experiment import Run, data_folder
from parity.run.paths import RunPaths

_KEYS = {
    "base": ("encoder", ("base", "revision", "num_layers", "pooling")),
    "template": (
        "prompt",
        ("format", "instruction", "query", "passage", "query_max_length", "passage_max_length"),
    ),
    "examples": ("prompt", ("examples", "example_count", "example_seed")),
    "precision": ("encoder", ("precision", "quantize")),
    "device": ("encoder", ("device",)),
    "budget": ("encoder", ("token_budget", "attention", "parallelism")),
}
"""Layer → the section and keys of a run file that set it."""
SWAPPED = tuple(name for name in layer_values.ORDER if name in {*_KEYS, "adapter"})
"""Layers that can be swapped here, in causal order."""
_LONG = 24  # characters of a setting that a line still shows
_WHY = {
    "rehearsal": "the rehearsal ranks a made-up test",
    "image": "the image ranks a made-up test",
    "kernel": "the kernel ran on Kaggle's machine, on rows that have no label here",
}


@dataclass(frozen=True, slots=True)
class _Replay:
    """A CV that can be scored again.

    Attributes:
        run: with the settings it was scored under.
        adapter: its folder; None for the bare base.
        weights: digest of the adapter; empty for the bare base.
        known: the competition as it was parted; valid holds the rows to be scored.
    """

    run: Run
    adapter: Path | None
    weights: str
    known: Dataset


def attribute(named: Sequence[str]) -> dict[str, Any]:
    """Print and return the parts of the gap between two sides.

    Args:
        named: two sides as `reconcile` takes them; the second may be a number.

    Raises:
        BadConfig: a side is no record, or no CV to start from.
        StaleInput: the rows that a CV ranked are not there any more.
    """
    if len(named) != 2:
        raise BadConfig(f"want two sides, found {len(named)}; invoke reconcile A B --attribute")
    data = data_folder()
    records = ledger.read(RunPaths(data, "").ledger)
    a = evidence_lookup.find(named[0], data, records)
    if evidence_lookup.NUMBER.fullmatch(named[1]):
        found, name = of_number(a, float(named[1]), data), named[1]
        other = name
    else:
        b = evidence_lookup.find(named[1], data, records)
        number = layer_values.value(b.evidence.score)
        public = b.evidence.kind in ledger.BOARDS and number is not None
        found = of_number(a, number or 0.0, data) if public else between(a, b, data)
        name, other = b.name, f"{b.name} ({b.id[:12]})"
    print(attribution.text(found, a.name, name))
    _keep(RunPaths(data, a.evidence.run), f"{a.name} ({a.id[:12]}) → {other}", found)
    return {"ladder": found.as_json(), "a": a.id, "b": name}


def _keep(place: RunPaths, pair: str, found: Attribution) -> None:
    """Keep a ladder for the report of the run that A is of, in the place of the pair's last."""
    if place.root.is_dir():  # not of a record that came from another machine
        kept = files.read_json(place.attributions) if place.attributions.is_file() else {}
        files.write_json(place.attributions, {**kept, pair: found.as_json()})


def of_number(a: EvidenceRecord, number: float, data: Path) -> Attribution:
    """Return what the unseen share makes of the gap between a CV and a leaderboard's number.

    Raises:
        BadConfig: the side is no CV.
        StaleInput: its ranking or labels are gone.
    """
    known = evidence_lookup.known(a, a, data, (), with_text=False)
    values, k = _recorded(a, data)
    return attribution.of_number(values, known.unseen, number, known.scoring, k=k)


def between(a: EvidenceRecord, b: EvidenceRecord, data: Path) -> Attribution:
    """Return the parts of the gap of two CVs; its notes say what could not be swapped, and why.

    Raises:
        BadConfig: a side is no CV, or no row was scored on both.
        StaleInput: a ranking or its labels are gone.
    """
    (mine, own), (theirs, other) = (_recorded(side, data) for side in (a, b))
    k = min(own, other)
    both = frozenset(int(question_of(row)) for row in mine.keys() & theirs.keys())
    if not both:
        raise BadConfig(
            "no row was scored on both sides, so nothing can be paired; give both run files one "
            "[split], then: invoke prepare and invoke eval"
        )
    scored = evidence_lookup.known(a, b, data, (), with_text=False).scoring
    notes = _fixed(a, b)
    steps: list[Step] = []
    if a.evidence.layers.get("data") != b.evidence.layers.get("data"):
        notes.append("nothing was scored anew: the competition's files differ, and rows with them")
    else:
        try:
            first, last = (_replay(side, data, both) for side in (a, b))
            steps = list(_steps(first, last, k, notes.append))
        except ParityError as error:
            notes.append(f"nothing was scored anew, so no layer has its own part: {error}")
    rows = mine.keys() & theirs.keys()
    if own > k:
        steps = [*_metric(mine, evidence_lookup.precisions(a, data, k), rows, (own, k)), *steps]
    if other > k:
        steps += _metric(evidence_lookup.precisions(b, data, k), theirs, rows, (k, other))
    found = attribution.attribute(mine, theirs, steps, scored, k=k)
    return replace(found, notes=tuple(notes))


def _metric(
    before: Values, after: Values, rows: Collection[QueryId], depths: tuple[int, int]
) -> list[Step]:
    """Return the steps from one ranking's MAP to that at another depth: nothing is scored anew."""
    first, last = ({row: one[row] for row in rows} for one in (before, after))
    return [Step("", "", first), Step("metric", "MAP@{} to MAP@{}".format(*depths), last)]


def _recorded(side: EvidenceRecord, data: Path) -> tuple[Values, int]:
    """Return each valid row's average precision as its evidence tells it, and k."""
    one = side.evidence
    if one.kind != "cv":
        why = _WHY.get(one.kind, "a leaderboard tells no rows")
        raise BadConfig(
            f"{side.name}: has no scored rows of its own ({why}); name a CV: "
            "invoke reconcile RUN/round-N/eval B --attribute"
        )
    found = evidence_lookup.precisions(side, data)
    if not found:
        raise StaleInput(
            f"{side.name}: the ranking of its valid rows or their labels are gone; run: invoke eval"
        )
    return found, layer_values.depth(one.score)


def _fixed(a: EvidenceRecord, b: EvidenceRecord) -> list[str]:
    """Name the layers that differ but are what they are on this machine."""
    mine, theirs = layer_values.values(a), layer_values.values(b)
    names = ("corpus", "packages")
    odd = [name for name in names if name in mine and mine[name] != theirs.get(name, mine[name])]
    return [f"in the remainder, for they cannot be swapped here: {', '.join(odd)}"] if odd else []


def _replay(side: EvidenceRecord, data: Path, both: frozenset[int]) -> _Replay:
    """Return a side ready to be scored on the questions of both.

    Raises:
        StaleInput: its settings, adapter, split or data are not there any more.
    """
    one = side.evidence
    place = RunPaths(data, one.run)
    path = place.evidence(side.id) / SETTINGS
    if not path.is_file():
        raise StaleInput(f"{side.name}: no settings are kept beside its record; run: invoke eval")
    config = configs.build(files.read_json(path), str(path))
    run = Run(Path("runs") / f"{one.run}.toml", config, place, one.round)
    prepared = manifests.read(place.prepare)
    split = place.split(config.split.name)
    same = prepared is not None and of_value(prepared.inputs) == one.layers.get("data")
    if not (same and split.is_file() and Split.read(split).digest() == one.layers.get("split")):
        raise StaleInput(
            f"{side.name}: its data or split was made anew since; run: {run.command('prepare')}"
        )
    known = dataset.load(run)
    kept = tuple(one for one in known.split.valid if one in both)
    unseen = frozenset(row for row in known.split.unseen if int(question_of(row)) in both)
    narrow = replace(known.split, valid=kept, unseen=unseen)
    weights = one.layers.get("adapter", "")
    found = _adapter(run, weights) if weights else None
    return _Replay(run, found, weights, replace(known, split=narrow))


def _adapter(run: Run, weights: str) -> Path:
    """Return the folder of a run's adapter whose weights have a digest.

    Raises:
        StaleInput: none has.
    """
    folder = run.workspace.stage("train", run.round)
    for path in (run.workspace.adapter(run.round), *sorted(folder.glob("epoch-*"))):
        if path.is_dir() and adapters.read_record(path).weights == weights:
            return path
    raise StaleInput(
        f"{run.config.name}: adapter {weights[:12]} is gone from {folder}; "
        f"run: {run.command('train')}"
    )


def _steps(a: _Replay, b: _Replay, k: int, note: Callable[[str], None]) -> Iterator[Step]:
    """Score A, then each swap of a layer that differs; a swap that fails is left to the next."""
    if not any(_differs(name, a, b) for name in SWAPPED):
        note("no layer that can be swapped differs, so nothing was scored anew")
        return
    yield Step("", "", _values(a, k))
    now = a
    for name in SWAPPED:
        if not _differs(name, now, b):  # an adapter came with its base
            continue
        told, now = _told(name, now, b), _swap(name, now, b)
        try:
            yield Step(name, told, _values(now, k))
        except ParityError as error:
            note(f"{name} cannot be swapped alone, so its part is in what follows: {error}")


def _differs(name: str, a: _Replay, b: _Replay) -> bool:
    if name == "adapter":
        return a.weights != b.weights
    pools = name == "examples" and a.run.config.prompt.examples != "none"
    return _changed(name, a, b) != [] or (pools and a.known.pool != b.known.pool)


def _changed(name: str, a: _Replay, b: _Replay) -> list[tuple[str, str, str]]:
    """Return key, A's value and B's of the settings of a layer that differ."""
    section, keys = _KEYS[name]
    mine, theirs = (getattr(one.run.config, section) for one in (a, b))
    pairs = ((key, str(getattr(mine, key)), str(getattr(theirs, key))) for key in keys)
    return [pair for pair in pairs if pair[1] != pair[2]]


def _swap(name: str, now: _Replay, b: _Replay) -> _Replay:
    """Return `now` with one layer as B has it; an adapter fits no base but its own."""
    if name == "adapter":
        return replace(now, adapter=b.adapter, weights=b.weights)
    if name == "base":
        now = replace(now, adapter=b.adapter, weights=b.weights)
    if name == "examples":
        now = replace(now, known=b.known)
    section, keys = _KEYS[name]
    theirs = getattr(b.run.config, section)
    changed = getattr(now.run.config, section).model_copy(
        update={key: getattr(theirs, key) for key in keys}
    )
    config: Config = now.run.config.model_copy(update={section: changed})
    return replace(now, run=replace(now.run, config=config))


def _told(name: str, now: _Replay, b: _Replay) -> str:
    if name == "adapter":
        mine, theirs = (one.weights[:12] or layer_values.NONE for one in (now, b))
        return f"{mine} to {theirs}"
    changed = _changed(name, now, b)
    shown = [f"{key} {x} to {y}" for key, x, y in changed if max(len(x), len(y)) <= _LONG and x]
    names = [key for key, *_ in changed if not any(one.startswith(f"{key} ") for one in shown)]
    pool = ["the pool they are drawn from"] if name == "examples" and not changed else []
    own = ["with its adapter"] if name == "base" and now.weights != b.weights else []
    return ", ".join([*names, *shown, *pool, *own])


def _values(side: _Replay, k: int) -> Values:
    """Score the rows of both, as `eval` does."""
    found = evaluation.score(
        encoder_loading.keeping(side.run, side.adapter), side.run.config, side.known
    )
    assert found.ranking is not None  # there are rows of both
    return metrics.average_precisions(found.ranking, side.known.valid_qrels, k=k)
