"""`advise`: report which CV to trust and which runs it cannot distinguish."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from parity.analysis import run_table, run_table_summary
from parity.analysis.compare import layer_values
from parity.analysis.forecast import advice, calibration, power
from parity.analysis.forecast.advice import LEAST, Advice, EpochScore
from parity.analysis.forecast.power import PairPower
from parity.analysis.run_table import ROW_SD, SAME_CV, TableRun
from parity.competition.scoring.metrics import Scores
from parity.pipeline import evidence_artifacts, evidence_lookup
from parity.run import files, ledger
from parity.run.command_line import build_command
from parity.run.errors import StaleInput
from parity.run.experiment import data_folder, run_file_of
from parity.run.ledger import Evidence
from parity.run.paths import RunPaths

_BOARD = "public"
_SCORE_MORE_ROWS = (
    "score more validation rows: split.folds = 5 with split.fold = 0 to 4, and mine, train and "
    "eval for each"
)
_SUBMIT_MORE = "score another run with eval, then submit it"


def advise(log: Path | None = None, *, rows: Sequence[str] = ()) -> dict[str, Any]:
    """Print and return advice from the scores of the ledger, or of a table of runs.

    Args:
        log: table of runs, FILE.csv; None reads the ledger.
        rows: `SPLIT=N` texts, scored rows of the table's splits.

    Raises:
        BadConfig: the table does not exist, or `rows` names an unknown split.
        BadData: a column, a score or the size of a split is missing or wrong.
        StaleInput: the ledger has no CV.
    """
    result = from_table(log, run_table.parse_rows(rows)) if log else from_ledger()
    print(advice.text(result))
    return result.as_json()


def from_table(path: Path, counts: dict[str, int]) -> Advice:
    """Return advice from a table of runs.

    Args:
        path: CSV file.
        counts: split → scored rows; the table's `rows` column has the others.

    Raises:
        BadConfig: the table does not exist, or `counts` names an unknown split.
        BadData: a column, a score or the size of a split is missing or wrong.
    """
    table = run_table.read_runs(path, counts)
    suspects = run_table_summary.suspects(table)
    excluded = {suspect.pair.row.line for suspect in suspects}
    scored = [row for row in table if row.cv is not None and row.line not in excluded]
    rows = list(run_table.without_rescored(scored))
    epochs = [
        EpochScore(
            row.run,
            row.split,
            1 if row.epoch is None else row.epoch,
            {"all": row.cv},
            row.lb,
        )
        for row in rows
        if row.cv is not None
    ]
    names = ", ".join(suspect.pair.row.name for suspect in suspects)
    with_lb = sum(row.lb is not None for row in table)
    notes = [
        f"A table has no scores by row: the sd is taken as {ROW_SD:g} a row and the rows of two "
        "runs as independent, so needed is too high where two rankings are similar.",
        f"{with_lb} rows have a leaderboard score. Left out: rows without a CV, and rows that "
        f"score an adapter again (CV within {SAME_CV:g}; {len(scored) - len(rows)}).",
    ]
    if suspects:
        notes.append(f"Left out, CV too far above the leaderboard, contaminated? {names}.")
    return _advice(epochs, _table_neighbors(rows), notes, "")


def _table_neighbors(rows: Sequence[TableRun]) -> list[PairPower]:
    """Compare the best row of each run with the next, among rows with a leaderboard score."""
    best: dict[tuple[str, str], tuple[float, int]] = {}
    for row in rows:
        if row.cv is not None and row.lb is not None:
            key = (row.split, row.run)
            best[key] = max(best.get(key, (row.cv, row.rows)), (row.cv, row.rows))
    order = sorted(best.items(), key=lambda item: (item[0][0], -item[1][0]))
    return [
        power.unpaired((run_a, cv_a), (run_b, cv_b), count, ROW_SD)
        for ((split_a, run_a), (cv_a, count)), ((split_b, run_b), (cv_b, _)) in pairwise(order)
        if split_a == split_b
    ]


def from_ledger() -> Advice:
    """Return advice from the ledger.

    Raises:
        StaleInput: the ledger has no CV.
    """
    data = data_folder()
    path = RunPaths(data, "").ledger
    records = ledger.read(path)
    scored = [record for record in records if record.kind == "cv" and record.status == "clean"]
    if not scored:
        raise StaleInput(f"no CV in {path} for advice", fix=("eval",))
    epochs = list(_epochs(data, scored, records))
    compared, notes = _neighbors(data, scored)
    unsubmitted = [
        record
        for record in scored
        if record.label == "best" and _leaderboard_score(record, records) is None
    ]
    command = ""
    if unsubmitted:
        newest = unsubmitted[-1]
        run_file = run_file_of(newest.run)
        command = build_command("submit", run_file=run_file, round_=newest.round)
    return _advice(epochs, compared, notes, command)


def _advice(
    epochs: list[EpochScore], compared: list[PairPower], notes: Sequence[str], submit: str
) -> Advice:
    pairs = sum(epoch.score is not None for epoch in epochs)
    is_enough = pairs >= LEAST
    is_undecided = any(not pair.is_decided for pair in compared)
    following = _SCORE_MORE_ROWS if is_undecided and is_enough else submit or _SUBMIT_MORE
    return Advice(
        pairs,
        advice.by_split(epochs) if is_enough else (),
        advice.by_choice(epochs) if is_enough else (),
        advice.concordant_epochs(epochs),
        tuple(compared),
        tuple(notes),
        following,
    )


def _epochs(data: Path, scored: list[Evidence], records: list[Evidence]) -> Iterator[EpochScore]:
    """Yield each adapter with its newest CV on each split, then its training's other epochs."""
    newest: dict[tuple[str, ...], Evidence] = {}
    for record in scored:
        newest[_training(record), _split(record), *ledger.identity(record.layers)] = record
    for record in newest.values():
        trained = _trained_epochs(data, record)
        adapter = record.layers.get("adapter")
        numbers = [number for number, weights, _ in trained if weights == adapter]
        number = numbers[0] if numbers else int(bool(adapter))
        training, split = _training(record), _split(record)
        score = _leaderboard_score(record, records)
        yield EpochScore(training, split, number, _measures(record.score), score)
        evaluated = {item.layers.get("adapter") for item in scored if _training(item) == training}
        if record.label == "best" and numbers:  # otherwise the run was trained again since
            for epoch, weights, scores in trained:
                if weights not in evaluated:
                    yield EpochScore(training, split, epoch, _measures(scores))


def _trained_epochs(data: Path, record: Evidence) -> list[tuple[int, str, dict[str, Any]]]:
    """Return number, adapter digest and scores of the epochs of a record's training."""
    folder = RunPaths(data, record.run).stage("train", record.round)
    epochs = []
    for path in sorted(folder.glob("epoch-*.json")):
        epoch = files.read_json(path)
        if epoch.get("scores"):
            number = int(path.stem.rpartition("-")[2])
            epochs.append((number, epoch["layers"]["adapter"], epoch["scores"]))
    return epochs


def _measures(score: dict[str, Any]) -> dict[str, float]:
    """Return measure → mean of a CV's scores as plain values."""
    scores = Scores.from_json(score)
    values = {
        "all": scores.all.score,
        "projection": scores.projection,
        "unseen": scores.unseen.score,
    }
    return {name: interval.value for name, interval in values.items() if interval is not None}


def _leaderboard_score(record: Evidence, records: Sequence[Evidence]) -> float | None:
    """Return the newest leaderboard score of a record's adapter."""
    scores = [
        calibration.leaderboard_score(item)
        for item in records
        if item.kind == _BOARD and ledger.is_same_model(item.layers, record.layers)
    ]
    return scores[-1] if scores else None


def _neighbors(data: Path, scored: list[Evidence]) -> tuple[list[PairPower], list[str]]:
    """Compare each run with the next by CV, row by row.

    Returns:
        The comparisons, and a note for each record whose ranking is missing.
    """
    newest = {
        (_training(record), record.layers.get("split"), record.layers.get("data")): record
        for record in scored
        if record.label in ("best", "base")
    }
    order = sorted(newest.items(), key=lambda item: (*map(str, item[0][1:]), -_mean(item[1])))
    sides = [evidence_artifacts.with_artifacts(record, data, scored) for _, record in order]
    ranked = [(side, evidence_lookup.row_precisions(side, data)) for side in sides]
    notes = [
        f"no comparison: the ranking of {side.name} is missing" for side, rows in ranked if not rows
    ]
    comparisons = [
        power.compare(
            (_training(a.evidence), rows_a),
            (_training(b.evidence), rows_b),
            evidence_lookup.load_artifacts(a, b, data, (), with_text=False).scoring,
        )
        for (a, rows_a), (b, rows_b) in pairwise(item for item in ranked if item[1])
        if all(
            a.evidence.layers.get(name) == b.evidence.layers.get(name) for name in ("split", "data")
        )
    ]
    return comparisons, notes


def _mean(record: Evidence) -> float:
    return layer_values.value(record.score) or 0.0


def _training(record: Evidence) -> str:
    """Return the name of a record's training; a base model has one name per run."""
    is_tuned = record.layers.get("adapter")
    return f"{record.run}/round-{record.round}" if is_tuned else f"{record.run}/base"


def _split(record: Evidence) -> str:
    return record.facts.get("split") or record.layers.get("split", "")[:12]
