"""`forecast`: predict a leaderboard score interval from CV, and record it before submitting."""

import csv
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from parity.analysis.forecast import calibration, score_slices, selection, unseen_estimate
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
from parity.competition import ranking as rankings
from parity.competition.lineage import Lineage
from parity.competition.scoring import metrics
from parity.competition.scoring.metrics import Scores
from parity.competition.scoring.row_metrics import metric_of
from parity.pipeline import dag, dataset, evaluations, score_tables
from parity.pipeline.command_cores import forecast_choice
from parity.pipeline.dag import StageGraph
from parity.pipeline.dataset import Dataset
from parity.pipeline.evaluation import labels_of
from parity.pipeline.model_reference import Model
from parity.run import digest, ledger
from parity.run.command_line import build_command
from parity.run.config.run_file import Config
from parity.run.errors import BadConfig, BadData
from parity.run.experiment import Run, data_folder
from parity.run.ledger import Evidence, ForecastRecord, Kind
from parity.run.paths import RunPaths
from parity.run.progress import wrap_lines

BOARD: Kind = "public"
"""Leaderboard of the forecasts."""
_EXAMPLE = 50  # a test.csv with fewer questions is Kaggle's example, not the hidden test
_SOURCES = {
    "cv": "sampling of the CV's rows",
    "hidden": "of the hidden rows",
    "share": "p",
    "transfer": "CV-to-LB noise",
}


def forecast_or_check(
    run: Run | None, *, model: str, evaluation: str, check: bool
) -> dict[str, Any]:
    """Forecast a run's score, or with `check` compare past forecasts of all runs with scores."""
    return check_forecasts() if check or run is None else forecast(run, model, evaluation)


def forecast(run: Run, model: str = "", evaluation: str = "") -> dict[str, Any]:
    """Forecast the public score of a model, print it and add it to the ledger.

    The ledger takes it once, and only while it has no score of the same adapter.

    Args:
        run: run at its round.
        model: reference of the model that was scored; empty is the round's best adapter.
        evaluation: name of the evaluation that it was scored under; empty is the run's settings.

    Raises:
        StaleInput: the CV is missing or stale.
        Contaminated: the CV is on rows that the adapter was trained on.
        BadConfig: all validation rows are seen, or all are unseen.
    """
    run = run.evaluated_as(evaluation)
    chosen = _scored_model(run, model)
    run, label = run.at(chosen.round), dag.evaluation_label(chosen, run)
    record, folder = evaluations.find_cv(run, chosen), dag.evaluation_folder(run, chosen)
    data = score_tables.with_rows_of(dataset.load(run.config, run.workspace), folder)
    records, fix = ledger.read(run.workspace.ledger), run.command_words("prepare")
    cv, board = _slices(folder, data, record, fix), _prior(run.config, data, record, records)
    counts, trained_on = _label_counts(data), Lineage.of_adapter(chosen.folder).trained_on
    trained = labels_of(data, trained_on or data.split.train)
    covered = unseen_estimate.seen_coverage(counts, trained)
    seed, candidates = run.config.scoring.seed, forecast_choice.candidates(run, chosen, data)
    luck = selection.optimism(
        candidates, data.split.unseen, run.config.scoring.seen_share, seed=seed
    )
    facts = _facts(cv, board, record, covered)
    facts["choice"] = {"among": max(len(candidates), 1), "optimism": luck.tolist()}
    result = forecasting.forecast(selection.corrected(cv, luck), board, covered=covered, seed=seed)
    new_record = ForecastRecord(
        run=run.config.name,
        round=run.round,
        label=label,
        board=BOARD,
        layers={name: value for name, value in record.layers.items() if value},
        key=digest.of_value({**facts, "seed": seed}),
        forecast=result.as_json(),
        facts=facts,
        made=ledger.utc_now(),
    )
    scores = [item for item in records if item.kind == BOARD and _is_same_model(item, record)]
    score = calibration.leaderboard_score(scores[-1]) if scores else None
    print(_text(new_record, result, unseen_estimate.unseen_mass(counts.values())))
    if score is not None:
        print(f"not added to the ledger: the score is known, {score:.4f}")
    else:
        is_new = ledger.append_forecast(run.workspace.ledger, new_record)
        print("added to the ledger" if is_new else "already in the ledger")
        print(f"next: {run.command('submit')}")
        print(f"when its score arrives: {build_command('forecast', '--check')}")
    return {
        "forecast": new_record.forecast,
        "facts": facts,
        "key": new_record.key,
        "score": score,
    }


def _scored_model(run: Run, reference: str) -> Model:
    """Return the model that a user names, after checking what its evaluation needs."""
    graph = StageGraph()
    graph.require(run, "eval")
    model = graph.model(run, "eval", reference)
    assert model is not None  # `eval` loads one
    return model


def check_forecasts() -> dict[str, Any]:
    """Print past forecasts of all runs with the scores that arrived."""
    path = RunPaths(data_folder(), "").ledger
    checked = calibration.join_scores(ledger.read(path), ledger.read_forecasts(path))
    print(calibration.text(checked))
    result = calibration.check_forecasts(checked)
    return {
        "checked": [asdict(item) for item in checked],
        "calibration": asdict(result) if result else None,
    }


def _slices(folder: Path, data: Dataset, cv: Evidence, fix: tuple[str, ...]) -> ScoreSlices:
    metric, ranking = metric_of(cv.score), rankings.read(folder / "ranking.jsonl")
    values = metrics.row_scores(ranking, data.valid_qrels, metric)
    topics = {query.query_id: query.topic or query.unit for query in data.valid}
    try:
        return score_slices.of(values, data.valid_qrels, data.split.unseen, topics)
    except BadData as error:
        raise BadConfig(
            f"{error}, and a forecast needs seen and unseen rows. Set split.kind = 'unseen' in the "
            "run file",
            fix=fix,
        ) from error


def _prior(
    config: Config, data: Dataset, cv: Evidence, records: list[Evidence]
) -> LeaderboardPrior:
    section, counts = config.forecast, _label_counts(data)
    covered = unseen_estimate.seen_coverage(counts, data.positives)
    prior = SeenShare.beta(config.scoring.seen_share, section.share_rows)
    return LeaderboardPrior(
        prior.updated(unseen_estimate.unseen_mass(counts.values())),
        HiddenTest(section.rows or _hidden_rows(data, config.shipping.queries)),
        [*_read_pairs(config, covered), *_ledger_pairs(cv, records, covered)],
        CvToLbNoise(section.factor, section.residual),
    )


def _hidden_rows(data: Dataset, queries: int) -> float:
    """Return the scored rows of the hidden test: all rows minus those without a label."""
    units = len({query.unit for query in data.queries})
    tested = len({query.unit for query in data.test})
    scored = len(data.qrels) / units
    per_unit = len(data.test) / max(tested, 1)  # rows, with a label or without
    hidden = queries / max(per_unit, 1.0)
    return scored * (tested if tested >= _EXAMPLE else hidden)


def _ledger_pairs(cv: Evidence, records: list[Evidence], covered: float) -> list[ScorePair]:
    """Return the CVs of other adapters on this data with their scores on this leaderboard."""
    pairs = dict[tuple[str, ...], ScorePair]()  # an adapter that was submitted twice is one pair
    for score in records:
        if score.kind != BOARD or _is_same_model(score, cv):
            continue
        value = calibration.leaderboard_score(score)
        before = [
            record
            for record in records
            if (record.kind, record.status) == ("cv", "clean")
            and record.layers.get("data") == cv.layers.get("data")
            and _is_same_model(record, score)
        ]
        if not value or not before:
            continue
        scores = Scores.from_json(before[-1].score)
        if scores.seen.score and scores.unseen.score:
            other = before[-1].layers["split"] != cv.layers["split"]
            means = scores.seen.score.value, scores.unseen.score.value
            pairs[ledger.identity(score.layers)] = ScorePair(*means, value, covered, other)
    return list(pairs.values())


def _read_pairs(config: Config, covered: float) -> list[ScorePair]:
    """Return the pairs of the table that the run file names, without this run's pair.

    Raises:
        BadConfig: the table does not exist, or a column or number is missing.
    """
    if not config.forecast.pairs:
        return []
    path = Path(config.forecast.pairs)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["name"] != config.name]
        return [
            ScorePair(
                seen=float(row["seen"]),
                unseen=float(row["unseen"]),
                score=float(row["score"]),
                covered=covered,
                other=row["split"] != config.split.name,
            )
            for row in rows
        ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise BadConfig(
            f"{error!r} in forecast.pairs = {path}. Wanted: a CSV file with name, split, seen, "
            "unseen, score"
        ) from error


def _is_same_model(a: Evidence, b: Evidence) -> bool:
    return ledger.is_same_model(a.layers, b.layers)


def _label_counts(data: Dataset) -> Counter[int]:
    return Counter(label for labels in data.qrels.values() for label in labels)


def _facts(
    cv: ScoreSlices, board: LeaderboardPrior, record: Evidence, covered: float
) -> dict[str, Any]:
    """Return the inputs of a forecast; equal facts give an equal forecast."""
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


def _text(record: ForecastRecord, result: Forecast, mass: unseen_estimate.Bounds) -> str:
    facts = record.facts
    seen, unseen = facts["rows"]
    order = sorted(result.sources, key=lambda name: -result.sources[name])
    sources = ", ".join(f"{_SOURCES[name]} {result.sources[name]:.0%}" for name in order)
    prior, prior_low, prior_high = facts["share"]
    share, share_low, share_high = result.share
    factor, factor_low, factor_high = result.factor
    return "\n".join(
        [
            f"{record.run}, round {record.round}, {record.label}: {record.board} score",
            f"  median {result.median:.4f}   50 % {_span(result.half)}   90 % {_span(result.wide)}",
            *wrap_lines(f"sources of width: {sources}", "  "),
            f"  CV: seen {facts['seen']:.4f} ({seen} rows), unseen {facts['unseen']:.4f} "
            f"({unseen} rows)",
            *_choice_lines(facts["choice"]),
            f"  hidden test: {facts['hidden']:.0f} scored rows",
            f"  p, its seen share: {prior:.2f} ({prior_low:.2f} to {prior_high:.2f}) by run file "
            "and labels;",
            f"    if sampled as train was, {mass.value:.0%} ({mass.low:.0%} to {mass.high:.0%}) of "
            "its rows are unseen",
            f"  after {result.pairs} earlier pairs: p {share:.2f} ({share_low:.2f} to "
            f"{share_high:.2f}), factor {factor:.2f} ({factor_low:.2f} to {factor_high:.2f})",
            f"  this training covers {facts['covered']:.0%} of the seen rows",
        ]
    )


def _choice_lines(choice: dict[str, Any]) -> list[str]:
    """Return by how much the best of several epochs is expected to be lucky."""
    if choice["among"] < 2:
        return []
    seen, unseen = choice["optimism"]
    return [f"  chosen among {choice['among']} epochs: less {seen:.4f} seen, {unseen:.4f} unseen"]


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}"
