"""A run's CV → the interval of its leaderboard score, written down before there is one."""

import csv
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from parity.analysis.forecast import calibration, score_slices, unseen_estimate
from parity.analysis.forecast import forecast as forecasting
from parity.analysis.forecast.forecast import Forecast
from parity.analysis.forecast.leaderboard import (
    CvToLbNoise,
    HiddenTest,
    LeaderboardPrior,
    ScorePair,
    SeenShare,
)
from parity.analysis.forecast.score_slices import ScoreSlices
from benchmarks.run_log import golden
from parity.competition import ranking as rankings
from parity.competition.scoring import metrics
from parity.competition.scoring.metrics import Scores
from parity.pipeline import dag, dataset
from parity.pipeline.dataset import Dataset
from parity.run import digest, files, ledger
from parity.run import manifest as manifests
from parity.run.errors import BadConfig, BadData, Contaminated, StaleInput
from parity.run.experiment import Run, data_folder
from parity.run.ledger import Evidence, ForecastRecord, Kind
from parity.run.paths import RunPaths

BOARD: Kind = "public"
_EXAMPLE = 50  # a test.csv of fewer questions is Kaggle's example, not the hidden test
_NAMED = {
    "cv": "CV's rows",
    "hidden": "hidden rows",
    "share": "p",
    "transfer": "how CV carries over",
}


def forecast(run: Run, label: str) -> dict[str, Any]:
    """Print the interval of the public score that a run's CV leads one to expect.

    It goes into the ledger once, and only while the ledger has no score of the same adapter.

    Args:
        run: at its round.
        label: what was scored: `best`, `base` or `epoch-N`.

    Raises:
        StaleInput: there is no CV of it, or a stale one.
        Contaminated: it was trained on rows it was scored on.
        BadConfig: no valid row is seen, or none is unseen.
    """
    record, known = _cv(run, label), dataset.load(run)
    records = ledger.read(run.workspace.ledger)
    cv, board = _slices(run, known, record), _board(run, known, record, records)
    counts = _counts(known)
    covered = unseen_estimate.seen_coverage(counts, known.positives)
    facts = _facts(cv, board, record, covered)
    seed = run.config.scoring.seed
    found = forecasting.forecast(cv, board, covered=covered, seed=seed)
    made = ForecastRecord(
        run=run.config.name,
        round=run.round,
        label=label,
        board=BOARD,
        layers={name: value for name, value in record.layers.items() if value},
        key=digest.of_value({**facts, "seed": seed}),
        forecast=found.as_json(),
        facts=facts,
        made=ledger.now(),
    )
    scores = [one for one in records if one.kind == BOARD and _of(one, record)]
    there = calibration.shown(scores[-1]) if scores else None
    print(_text(made, found, unseen_estimate.unseen_mass(counts.values())))
    if there is not None:
        print(f"not written down: the score is known, {there:.4f}")
    else:
        new = ledger.append_forecast(run.workspace.ledger, made)
        print("written to the ledger" if new else "in the ledger already")
        print(f"next: {run.command('submit')}")
        print("once its score is here: invoke forecast --judge")
    return {"forecast": made.forecast, "facts": facts, "key": made.key, "score": there}


def judge() -> dict[str, Any]:
    """Print how past forecasts did against the scores that arrived, of all runs."""
    place = RunPaths(data_folder(), "").ledger
    judged = calibration.joined(ledger.read(place), ledger.forecasts(place))
    print(calibration.text(judged))
    found = calibration.check_forecasts(judged)
    return {"judged": [asdict(one) for one in judged], "together": found and asdict(found)}


def backtest() -> dict[str, Any]:
    """Print how well models foretell the golden log's scores, one training left out."""
    pairs = golden.read()
    found = golden.backtest(pairs)
    print(golden.text(pairs, found))
    return {
        name: {"rmse": one.rmse, "mean_error": float(one.error.mean()), "covered": one.covered}
        for name, one in found.items()
    }


def _cv(run: Run, label: str) -> Evidence:
    """Return the record of a CV whose files still lie there, clean and not stale."""
    folder = run.workspace.evaluation(run.round, label)
    best = folder == dag.folder(run, "eval")
    command = run.command("eval", *([] if best else ["--adapter", label]))
    if manifests.read(folder) is None:
        raise StaleInput(f"no CV of {label} of round {run.round} to forecast from; run: {command}")
    if best:
        standing = dag.StageGraph().standing(run, "eval")
        if standing.state != "done":
            raise StaleInput(f"the CV of {label} is stale ({standing.why}); run: {command}")
    if files.read_json(folder / "scores.json")["status"] != "clean":
        raise Contaminated(
            f"the CV of {label} is contaminated: it was scored on rows it was trained on; "
            "train it on "
            f"this split: {run.command('train')}"
        )
    found = [
        one
        for one in ledger.read(run.workspace.ledger)
        if (one.run, one.round, one.label, one.kind) == (run.config.name, run.round, label, "cv")
        and one.status == "clean"
    ]
    if not found:
        raise StaleInput(f"the ledger has no CV of {label}; run: {command}")
    return found[-1]


def _slices(run: Run, known: Dataset, cv: Evidence) -> ScoreSlices:
    place = run.workspace.evaluation(run.round, cv.label) / "ranking.jsonl"
    k = Scores.from_json(cv.score).k
    values = metrics.average_precisions(rankings.read(place), known.valid_qrels, k=k)
    subjects = {query.query_id: query.subject_id for query in known.valid}
    try:
        return score_slices.of(values, known.valid_qrels, known.split.unseen, subjects)
    except BadData as error:
        raise BadConfig(
            f"{error}, and a forecast weighs both: set split.kind = 'unseen', "
            f"then: {run.command('prepare')}"
        ) from error


def _board(run: Run, known: Dataset, cv: Evidence, records: list[Evidence]) -> LeaderboardPrior:
    config, counts = run.config.forecast, _counts(known)
    covered = unseen_estimate.seen_coverage(counts, known.positives)
    prior = SeenShare.beta(run.config.scoring.seen_share, config.share_rows)
    return LeaderboardPrior(
        prior.beside(unseen_estimate.unseen_mass(counts.values())),
        HiddenTest(config.rows or _hidden(run, known)),
        [*_told(run, covered), *_pairs(cv, records, covered)],
        CvToLbNoise(config.factor, config.residual),
    )


def _hidden(run: Run, known: Dataset) -> float:
    """Return the scored rows of the hidden test: asked rows, less those that have no label."""
    questions = len({query.question_id for query in known.queries})
    tested = len({query.question_id for query in known.test})
    scored = len(known.qrels) / questions
    wrong = len(known.test) / max(tested, 1)  # rows asked of each question
    asked = run.config.shipping.queries / max(wrong, 1.0)
    return scored * (tested if tested >= _EXAMPLE else asked)


def _pairs(cv: Evidence, records: list[Evidence], covered: float) -> list[ScorePair]:
    """Return what went to this leaderboard before: other adapters' CV on this data and score."""
    found = dict[tuple[str, ...], ScorePair]()  # an adapter that went there twice is one pair
    for score in records:
        value = calibration.shown(score) if score.kind == BOARD and not _of(score, cv) else None
        before = [
            record
            for record in records
            if (record.kind, record.status) == ("cv", "clean")
            and record.layers.get("data") == cv.layers.get("data")
            and _of(record, score)
        ]
        if not value or not before:
            continue
        scores = Scores.from_json(before[-1].score)
        if scores.seen.map and scores.unseen.map:
            other = before[-1].layers["split"] != cv.layers["split"]
            means = scores.seen.map.value, scores.unseen.map.value
            found[ledger.identity(score.layers)] = ScorePair(*means, value, covered, other)
    return list(found.values())


def _told(run: Run, covered: float) -> list[ScorePair]:
    """Return the pairs of the table that the run file names, but for the run's own.

    Raises:
        BadConfig: there is no such table, or it is not one of pairs.
    """
    if not run.config.forecast.pairs:
        return []
    path = Path(run.config.forecast.pairs)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["name"] != run.config.name]
        return [
            ScorePair(
                seen=float(row["seen"]),
                unseen=float(row["unseen"]),
                score=float(row["score"]),
                covered=covered,
                other=row["split"] != run.config.split.name,
            )
            for row in rows
        ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise BadConfig(
            f"forecast.pairs = {path}: {error!r}; want a table of name, split, seen, unseen, score"
        ) from error


def _of(one: Evidence, other: Evidence) -> bool:
    return ledger.same(one.layers, other.layers)


def _counts(known: Dataset) -> Counter[int]:
    return Counter(kind for right in known.qrels.values() for kind in right)


def _facts(
    cv: ScoreSlices, board: LeaderboardPrior, record: Evidence, covered: float
) -> dict[str, Any]:
    """Return what a forecast is computed from; equal facts give an equal forecast."""
    return {
        "cv": ledger.id_of(record),
        "seen": float(cv.mean[score_slices.SEEN]),
        "unseen": float(cv.mean[score_slices.UNSEEN]),
        "error": np.sqrt(cv.variance).tolist(),
        "rows": cv.rows.tolist(),
        "covered": covered,
        "share": [board.share.mean, board.share.quantile(0.05), board.share.quantile(0.95)],
        "hidden": board.hidden.rows,
        "pairs": [asdict(pair) for pair in board.pairs],
        "transfer": asdict(board.transfer),
    }


def _text(made: ForecastRecord, found: Forecast, mass: unseen_estimate.Bounds) -> str:
    facts = made.facts
    seen, unseen = facts["rows"]
    order = sorted(found.sources, key=lambda name: -found.sources[name])
    wide = ", ".join(f"{_NAMED[name]} {found.sources[name]:.0%}" for name in order)
    before, low, high = facts["share"]
    after, least, most = found.share
    factor, under, over = found.factor
    return "\n".join(
        [
            f"{made.run}, round {made.round}, {made.label}: the {made.board} score",
            f"  median {found.median:.4f}   50 % {_span(found.half)}   90 % {_span(found.wide)}",
            f"  wide by: {wide}",
            f"  CV: seen {facts['seen']:.4f} ({seen} rows), unseen {facts['unseen']:.4f} "
            f"({unseen} rows)",
            f"  hidden test: {facts['hidden']:.0f} scored rows",
            f"  p, its seen share: {before:.2f} ({low:.2f} to {high:.2f}) by run file and labels;",
            f"    drawn as train was, {mass.value:.0%} ({mass.low:.0%} to {mass.high:.0%}) "
            "of its rows would be unseen, or more",
            f"  after {found.pairs} earlier pairs: p {after:.2f} ({least:.2f} to {most:.2f}), "
            f"a factor of {factor:.2f} ({under:.2f} to {over:.2f})",
            f"  of seen rows this training covers {facts['covered']:.0%}",
        ]
    )


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}"
