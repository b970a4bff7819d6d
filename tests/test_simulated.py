"""Simulated competitions: hidden rows stay hidden, effects of training, forecasts, tables."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from shipped_data import synthetic_folder
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks import simulated
from benchmarks.competitions import HIDDEN, SHARES, Simulated, simulate
from benchmarks.contenders import Vectors, World, contenders
from benchmarks.simulated import SimulatedForecast, check_competition, markdown, summary
from parity.analysis.forecast.forecast import Forecast
from parity.competition.eedi import kaggle_files
from parity.competition.scoring.baselines import query_text
from parity.competition.scoring.row_metrics import average_precision
from parity.run.experiment import open_run

ROOT = Path(__file__).parents[1]
EEDI = ROOT.parent / "shared" / "eedi"
LEARNERS = ("linear-mild", "nearest-mild", "linear-strong", "nearest-strong")


def _projected(texts: list[str], vectorizer: TfidfVectorizer, size: int) -> Vectors:
    """Return unit vectors in place of a small encoder's: projected character n-grams."""
    grams = vectorizer.transform(texts)
    down = np.random.default_rng(0).standard_normal((grams.shape[1], size))
    vectors = grams @ down
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


@pytest.fixture(scope="module")
def world() -> World:
    competition = kaggle_files.read(synthetic_folder())
    passages = [competition.corpus[key] for key in sorted(competition.corpus)]
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit(passages)
    return World(
        queries=tuple(competition.queries),
        qrels=competition.qrels,
        corpus=competition.corpus,
        query_vectors=_projected(
            [query_text(query) for query in competition.queries], vectorizer, 128
        ),
        passages=_projected(passages, vectorizer, 128),
    )


@pytest.fixture(scope="module")
def games(world: World) -> list[Simulated]:
    models = contenders(world)
    return [simulate(world, models, seed) for seed in range(3)]


def test_all_rows_of_a_hidden_question_are_hidden_with_their_labels(
    world: World, games: list[Simulated]
) -> None:
    for game in games:
        hidden = set(game.entries[0].hidden)
        assert hidden | set(game.labels) == set(world.qrels)
        assert hidden.isdisjoint(game.labels)
        of = {query.query_id: query.unit for query in world.queries}
        assert {of[row] for row in hidden}.isdisjoint({of[row] for row in game.labels})
        assert game.rows == len(hidden)
        assert abs(game.rows / len(world.qrels) - HIDDEN) < 0.02


def test_unseen_rows_follow_from_the_training_rows(world: World, games: list[Simulated]) -> None:
    of = {query.query_id: query.unit for query in world.queries}
    for game in games:
        trained = [row for row in game.labels if of[row] in set(game.split.train)]
        shown = Counter(key for row in trained for key in world.qrels[row])
        slow = {
            row for row in game.entries[0].hidden if not any(shown[k] for k in world.qrels[row])
        }
        assert game.unseen == slow
        assert game.share >= SHARES[0] - 0.02  # labels of the validation set are unseen as well
        assert set(game.entries[0].cv) == {
            row for row in game.labels if of[row] in game.split.valid
        }
    assert len({round(game.share, 3) for game in games}) == len(games)


def test_a_competition_depends_only_on_its_seed(world: World, games: list[Simulated]) -> None:
    assert simulate(world, contenders(world), 1) == games[1]


def test_training_helps_seen_rows_and_hurts_unseen_ones(games: list[Simulated]) -> None:
    for game in games:
        entries = {entry.name: entry for entry in game.entries}
        seen = [row for row in entries["untuned"].hidden if row not in game.unseen]
        unseen = sorted(game.unseen)

        def value(name: str, rows: list, entries: dict = entries) -> float:  # type: ignore[type-arg]
            return fmean(entries[name].hidden[row] for row in rows)

        for name in LEARNERS:
            assert value(name, seen) > value("untuned", seen), name
        assert value("nearest-strong", unseen) < value("untuned", unseen)


def test_the_nearest_row_agrees_with_a_slow_reference(world: World) -> None:
    train, rows = np.arange(0, 200), np.arange(200, 208)
    values = contenders(world)["nearest-mild"](world, train, rows)
    ids = sorted(world.corpus)
    for row in rows:
        scores = {}
        for position, key in enumerate(ids):
            shown = [at for at in train if min(world.qrels[world.queries[at].query_id]) == key]
            near = max(
                (float(world.query_vectors[row] @ world.query_vectors[at]) for at in shown),
                default=0.0,
            )
            scores[key] = float(world.query_vectors[row] @ world.passages[position]) + 0.05 * max(
                near, 0.0
            )
        best = sorted(ids, key=lambda key: (-scores[key], key))
        name = world.queries[row].query_id
        assert values[name] == pytest.approx(average_precision(best, world.qrels[name], 25))


def test_a_forecast_uses_earlier_scores_only(games: list[Simulated]) -> None:
    game = games[0]
    results = check_competition(game)
    assert [item.forecast.pairs for item in results] == list(range(len(game.entries)))
    assert [item.name for item in results] == [entry.name for entry in game.entries]
    last = game.entries[-1]
    changed_entry = replace(last, hidden=dict.fromkeys(last.hidden, 1.0))
    changed = check_competition(replace(game, entries=(*game.entries[:-1], changed_entry)))
    assert [item.forecast for item in changed] == [item.forecast for item in results]
    assert [item.blind.pairs for item in results] == [0] * len(results)
    assert results[0].blind == results[0].forecast
    assert results[-1].blind != results[-1].forecast
    assert changed[-1].board == 1.0
    assert results[-1].board < 1.0
    first = replace(game.entries[0], hidden=dict.fromkeys(last.hidden, 1.0))
    changed_first = check_competition(replace(game, entries=(first, *game.entries[1:])))
    assert changed_first[0].forecast == results[0].forecast
    assert changed_first[1].forecast != results[1].forecast


def _forecast(
    seed: int, name: str, cv: float, median: float, board: float, pairs: int
) -> SimulatedForecast:
    half, wide = (median - 0.01, median + 0.01), (median - 0.03, median + 0.03)
    forecast = Forecast(median, median, half, wide, {}, (0.2, 0.1, 0.3), (1.0, 0.9, 1.1), pairs)
    blind = replace(forecast, median=median + 0.01, pairs=0)
    return SimulatedForecast(seed, name, 0.7, cv, cv, cv, board, forecast, blind)


def test_the_summary_has_errors_coverage_and_both_references() -> None:
    checked = [
        _forecast(0, "a", cv=0.20, median=0.16, board=0.15, pairs=0),
        _forecast(0, "b", cv=0.30, median=0.22, board=0.20, pairs=1),
        _forecast(1, "a", cv=0.40, median=0.30, board=0.25, pairs=0),
        _forecast(1, "b", cv=0.60, median=0.35, board=0.35, pairs=1),
    ]
    rows = {row["of"]: row for row in summary(checked)}
    assert list(rows) == ["all", "all, without pairs", "a, 0 pairs", "b, 1 pairs"]
    everything = rows["all"]
    assert everything["count"] == 4
    assert everything["rmse"] == pytest.approx((0.0001 + 0.0004 + 0.0025) ** 0.5 / 2)
    assert everything["mean_error"] == pytest.approx(-0.02)
    assert everything["half"] == pytest.approx(0.5)
    assert everything["wide"] == pytest.approx(0.75)
    assert everything["cv"] == pytest.approx((0.0025 + 0.01 + 0.0225 + 0.0625) ** 0.5 / 2)
    assert everything["line"] == pytest.approx(0.0, abs=1e-12)  # board = 0.05 + cv / 2, in both
    assert rows["b, 1 pairs"]["rmse"] == pytest.approx((0.0004 / 2) ** 0.5)
    assert rows["all, without pairs"]["mean_error"] == pytest.approx(-0.03)
    text = markdown(checked)
    assert "| all | 4 | 0.0274 | -0.0200 | 50% | 75% | 0.060 | 0.1561 | 0.0000 |" in text
    assert "| 1 | 70% | a: 0.400, 0.300 (0.270-0.330), 0.250; b: 0.600" in text


@pytest.mark.slow
@pytest.mark.skipif(not EEDI.is_dir(), reason="the competition's files are missing")
def test_forecasts_of_thirty_simulated_competitions_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARITY_DATA", str(tmp_path))
    source = f"data.source={EEDI.as_posix()}"
    labeled = simulated.world(open_run(ROOT / "runs" / "eedi.toml", (source,)))
    models = contenders(labeled)
    checked = [
        item
        for seed in range(100, 130)
        for item in check_competition(simulate(labeled, models, seed))
    ]
    everything = summary(checked)[0]
    assert everything["rmse"] < everything["cv"]
    assert everything["rmse"] < everything["line"]
    assert everything["wide"] >= 0.85
    assert everything["half"] >= 0.4
