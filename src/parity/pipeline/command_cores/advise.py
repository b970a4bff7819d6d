"""Earlier scores → which CV to trust, and which runs it cannot tell apart; of a ledger or a log."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from parity.analysis.compare import layer_values
from parity.analysis.forecast import advice, calibration, power
from parity.analysis.forecast.advice import LEAST, Advice, EpochScore
from parity.analysis.forecast.power import PairPower
from benchmarks.run_log import log
from benchmarks.run_log.log import LoggedRun
from parity.competition.scoring.metrics import Scores
from parity.pipeline import evidence_lookup
from parity.run import files, ledger
from parity.run.errors import BadConfig, StaleInput
from parity.run.experiment import data_folder
from parity.run.ledger import Evidence
from parity.run.paths import RunPaths

_BOARD = "public"
_AGAIN = 0.005  # of CV: an adapter measured once more
_MORE = (
    "score on every labeled row: invoke prepare --set=split.folds=5 --set=split.fold=0, "
    "then mine, train and eval; so folds 1 to 4"
)


def advise(log_: Path | None = None) -> dict[str, Any]:
    """Print and return what the ledger's scores say, or those of a table of runs.

    Args:
        log_: a table such as the golden run table; None reads the ledger.

    Raises:
        BadConfig: there is no such table.
        BadData: the table lacks a column, or a figure is none.
        StaleInput: the ledger has no CV.
    """
    found = of_log(log_) if log_ else of_ledger()
    print(advice.text(found))
    return found.as_json()


def of_log(path: Path) -> Advice:
    """Return what a table of runs says.

    Raises:
        BadConfig: there is no such table.
        BadData: it lacks a column, or a figure is none.
    """
    if not path.is_file():
        raise BadConfig(f"{path}: no such table of runs; invoke advise FILE.csv")
    table = log.read(path)
    rows = log.usable(table)
    once = list(_once(rows))
    epochs = [
        EpochScore(
            one.run,
            one.rows,
            int(one.epoch) if one.epoch.isdigit() else int(one.tuned),
            {"all": one.score},
            one.lb,
        )
        for one in once
    ]
    notes = (
        f"No rows are at hand: sd is taken as {log.SPREAD:g} a row and each score as on rows of "
        "its own, so needed is too many where two rankings are alike.",
        f"{len([one for one in table if one.lb is not None])} rows have a public score. Left out: "
        "rerankers, contaminated or broken scores, those without a CV on a known split, and "
        "an adapter "
        f"measured again ({len(rows) - len(once)}).",
    )
    return _advice(epochs, _neighbours_of_log(once), notes, "")


def _once(rows: Sequence[LoggedRun]) -> Iterator[LoggedRun]:
    """Yield the rows less those of an adapter and score that stand there with nearly that CV."""
    seen: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for row in rows:
        before = seen[row.model, row.rows, row.round, row.epoch, row.tuned, row.lb]
        if row.lb is None or all(abs(row.score - cv) >= _AGAIN for cv in before):
            yield row
        before.append(row.score)


def _neighbours_of_log(rows: Sequence[LoggedRun]) -> list[PairPower]:
    """Return each training's best and the next, of those that have a public score."""
    best: dict[tuple[str, str], LoggedRun] = {}
    for row in rows:
        if row.lb is not None:
            key = (row.rows, row.run)
            best[key] = max(best.get(key, row), row, key=lambda item: item.score)
    order = sorted(best.values(), key=lambda item: (item.rows, -item.score))
    return [
        power.unpaired((a.run, a.score), (b.run, b.score), log.ROWS[a.split], log.SPREAD)
        for a, b in pairwise(order)
        if a.rows == b.rows
    ]


def of_ledger() -> Advice:
    """Return what the ledger says.

    Raises:
        StaleInput: it has no CV.
    """
    data = data_folder()
    records = ledger.read(RunPaths(data, "").ledger)
    scored = [record for record in records if record.kind == "cv" and record.status == "clean"]
    if not scored:
        raise StaleInput(f"{RunPaths(data, '').ledger}: no CV yet to advise from; run: invoke eval")
    epochs = list(_epochs(data, scored, records))
    compared, notes = _neighbours(data, scored)
    waiting = [one for one in scored if _score(one, records) is None and one.label == "best"]
    then = ""
    if waiting:
        one = waiting[-1]
        round_ = f" --round {one.round}" if one.round else ""
        then = f"invoke submit --run runs/{one.run}.toml{round_}"
    return _advice(epochs, compared, notes, then)


def _advice(
    epochs: list[EpochScore], compared: list[PairPower], notes: Sequence[str], submit: str
) -> Advice:
    pairs = sum(epoch.score is not None for epoch in epochs)
    enough = pairs >= LEAST
    unsure = any(not one.decided for one in compared)
    then = _MORE if unsure and enough else submit or "invoke eval of another run, then submit it"
    return Advice(
        pairs,
        advice.by_split(epochs) if enough else (),
        advice.by_choice(epochs) if enough else (),
        advice.within(epochs),
        tuple(compared),
        tuple(notes),
        then,
    )


def _epochs(data: Path, scored: list[Evidence], records: list[Evidence]) -> Iterator[EpochScore]:
    """Yield each adapter with its CV on each split once, then its training's other epochs."""
    newest: dict[tuple[str, ...], Evidence] = {}
    for one in scored:
        newest[_training(one), _split(one), *ledger.identity(one.layers)] = one
    for one in newest.values():
        trained = _trained(data, one)
        own = one.layers.get("adapter")
        there = [n for n, weights, _ in trained if weights == own]
        number = there[0] if there else int(bool(own))
        value = _score(one, records)
        yield EpochScore(_training(one), _split(one), number, _measures(one.score), value)
        told = {it.layers.get("adapter") for it in scored if _training(it) == _training(one)}
        if one.label == "best" and there:  # else it was trained anew since
            for other, weights, score in trained:
                if weights not in told:
                    yield EpochScore(_training(one), _split(one), other, _measures(score))


def _trained(data: Path, one: Evidence) -> list[tuple[int, str, dict[str, Any]]]:
    """Return number, adapter and scores of the epochs that lie beside a record's training."""
    folder = RunPaths(data, one.run).stage("train", one.round)
    found = []
    for path in sorted(folder.glob("epoch-*.json")):
        record = files.read_json(path)
        if record.get("scores"):
            number = int(path.stem.rpartition("-")[2])
            found.append((number, record["layers"]["adapter"], record["scores"]))
    return found


def _measures(score: dict[str, Any]) -> dict[str, float]:
    """Return MAP by measure, of a CV's scores as plain values."""
    read = Scores.from_json(score)
    parts = {"all": read.all.map, "projection": read.projection, "unseen": read.unseen.map}
    return {name: part.value for name, part in parts.items() if part is not None}


def _score(one: Evidence, records: Sequence[Evidence]) -> float | None:
    """Return the newest leaderboard's score of a record's adapter."""
    found = [
        calibration.shown(record)
        for record in records
        if record.kind == _BOARD and ledger.same(record.layers, one.layers)
    ]
    return found[-1] if found else None


def _neighbours(data: Path, scored: list[Evidence]) -> tuple[list[PairPower], list[str]]:
    """Compare each run with the next by CV, row by row; name those whose rows are gone."""
    newest = {
        (_training(one), one.layers.get("split"), one.layers.get("data")): one
        for one in scored
        if one.label in ("best", "base")
    }
    order = sorted(newest.items(), key=lambda item: (*map(str, item[0][1:]), -_all(item[1])))
    known = [evidence_lookup.with_artifacts(one, data, scored) for _, one in order]
    ranked = [(side, evidence_lookup.precisions(side, data)) for side in known]
    kept = [(side, values) for side, values in ranked if values]
    notes = [
        f"the rows that it ranked are gone: {side.name}" for side, values in ranked if not values
    ]
    found = [
        power.compare(
            (_training(a.evidence), mine),
            (_training(b.evidence), theirs),
            evidence_lookup.known(a, b, data, (), with_text=False).scoring,
        )
        for (a, mine), (b, theirs) in pairwise(kept)
        if all(
            a.evidence.layers.get(name) == b.evidence.layers.get(name) for name in ("split", "data")
        )
    ]
    return found, notes


def _all(one: Evidence) -> float:
    return layer_values.value(one.score) or 0.0


def _training(one: Evidence) -> str:
    """Return what an adapter is an epoch of; a bare base is its own."""
    return f"{one.run}/round-{one.round}" if one.layers.get("adapter") else f"{one.run}/base"


def _split(one: Evidence) -> str:
    return one.facts.get("split") or one.layers.get("split", "")[:12]
