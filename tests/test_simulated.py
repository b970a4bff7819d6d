"""Simulated competitions: what is hidden stays hidden, learners pay for what they learn, tables."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks import simulated
from benchmarks.competitions import HIDDEN, SHARES, Simulated, simulate
from benchmarks.contenders import Vectors, World, contenders
from benchmarks.simulated import Judged, judge, markdown, summary
from parity.analysis.forecast.forecast import Forecast
from parity.competition.eedi import kaggle_files
from parity.competition.scoring.baselines import query_text
from parity.competition.scoring.metrics import average_precision
from parity.run.experiment import open_run

ROOT = Path(__file__).parents[1]
EEDI = ROOT.parent / "shared" / "eedi"
LEARNERS = ("linear-mild", "nearest-mild", "linear-strong", "nearest-strong")


def _projected(texts: list[str], vectorizer: TfidfVectorizer, size: int) -> Vectors:
    """Return unit vectors that stand for a small encoder's: character n-grams, projected."""
    grams = vectorizer.transform(texts)
    down = np.random.default_rng(0).standard_normal((grams.shape[1], size))
    vectors = grams @ down
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


@pytest.fixture(scope="module")
def world() -> World:
    read = kaggle_files.read(ROOT / "data" / "synthetic")
    passages = [read.corpus[key] for key in sorted(read.corpus)]
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit(passages)
    return World(
        queries=tuple(read.queries),
        qrels=read.qrels,
        corpus=read.corpus,
        asked=_projected([query_text(query) for query in read.queries], vectorizer, 128),
        passages=_projected(passages, vectorizer, 128),
    )


@pytest.fixture(scope="module")
def games(world: World) -> list[Simulated]:
    models = contenders(world)
    return [simulate(world, models, seed) for seed in range(3)]


def test_hidden_questions_are_whole_and_no_label_of_theirs_is_known(
    world: World, games: list[Simulated]
) -> None:
    for game in games:
        hidden = set(game.entries[0].hidden)
        assert hidden | set(game.known) == set(world.qrels)
        assert hidden.isdisjoint(game.known)
        of = {query.query_id: query.question_id for query in world.queries}
        assert {of[row] for row in hidden}.isdisjoint({of[row] for row in game.known})
        assert game.rows == len(hidden)
        assert abs(game.rows / len(world.qrels) - HIDDEN) < 0.02


def test_unseen_is_told_by_what_models_learnt_from_and_its_share_is_drawn(
    world: World, games: list[Simulated]
) -> None:
    of = {query.query_id: query.question_id for query in world.queries}
    for game in games:
        learnt = [row for row in game.known if of[row] in set(game.split.train)]
        shown = Counter(key for row in learnt for key in world.qrels[row])
        slow = {
            row for row in game.entries[0].hidden if not any(shown[k] for k in world.qrels[row])
        }
        assert game.unseen == slow
        assert game.share >= SHARES[0] - 0.02  # misconceptions of valid alone are unseen as well
        assert set(game.entries[0].cv) == {row for row in game.known if of[row] in game.split.valid}
    assert len({round(game.share, 3) for game in games}) == len(games)


def test_a_competition_depends_on_its_seed_alone(world: World, games: list[Simulated]) -> None:
    assert simulate(world, contenders(world), 1) == games[1]


def test_learning_helps_seen_rows_and_costs_unseen_ones(games: list[Simulated]) -> None:
    for game in games:
        found = {entry.name: entry for entry in game.entries}
        seen = [row for row in found["untuned"].hidden if row not in game.unseen]
        unseen = sorted(game.unseen)

        def value(name: str, rows: list, found: dict = found) -> float:  # type: ignore[type-arg]
            return fmean(found[name].hidden[row] for row in rows)

        for name in LEARNERS:
            assert value(name, seen) > value("untuned", seen), name
        assert value("nearest-strong", unseen) < value("untuned", unseen)


def test_the_nearest_row_is_that_of_the_slow_twin(world: World) -> None:
    known, rows = np.arange(0, 200), np.arange(200, 208)
    found = contenders(world)["nearest-mild"](world, known, rows)
    ids = sorted(world.corpus)
    for row in rows:
        scores = {}
        for place, key in enumerate(ids):
            shown = [at for at in known if min(world.qrels[world.queries[at].query_id]) == key]
            near = max((float(world.asked[row] @ world.asked[at]) for at in shown), default=0.0)
            scores[key] = float(world.asked[row] @ world.passages[place]) + 0.05 * max(near, 0.0)
        best = sorted(ids, key=lambda key: (-scores[key], key))
        name = world.queries[row].query_id
        assert found[name] == pytest.approx(average_precision(best, world.qrels[name], 25))


def test_a_forecast_knows_the_scores_before_it_and_not_its_own(games: list[Simulated]) -> None:
    game = games[0]
    told = judge(game)
    assert [one.told.pairs for one in told] == list(range(len(game.entries)))
    assert [one.name for one in told] == [entry.name for entry in game.entries]
    last = game.entries[-1]
    other = replace(last, hidden=dict.fromkeys(last.hidden, 1.0))
    changed = judge(replace(game, entries=(*game.entries[:-1], other)))
    assert [one.told for one in changed] == [one.told for one in told]
    assert [one.blind.pairs for one in told] == [0] * len(told)
    assert told[0].blind == told[0].told
    assert told[-1].blind != told[-1].told
    assert changed[-1].board == 1.0
    assert told[-1].board < 1.0
    first = replace(game.entries[0], hidden=dict.fromkeys(last.hidden, 1.0))
    moved = judge(replace(game, entries=(first, *game.entries[1:])))
    assert moved[0].told == told[0].told
    assert moved[1].told != told[1].told


def _judged(seed: int, name: str, cv: float, median: float, board: float, pairs: int) -> Judged:
    half, wide = (median - 0.01, median + 0.01), (median - 0.03, median + 0.03)
    told = Forecast(median, median, half, wide, {}, (0.2, 0.1, 0.3), (1.0, 0.9, 1.1), pairs)
    blind = replace(told, median=median + 0.01, pairs=0)
    return Judged(seed, name, 0.7, cv, cv, cv, board, told, blind)


def test_the_summary_counts_errors_coverage_and_both_straw_men() -> None:
    judged = [
        _judged(0, "a", cv=0.20, median=0.16, board=0.15, pairs=0),
        _judged(0, "b", cv=0.30, median=0.22, board=0.20, pairs=1),
        _judged(1, "a", cv=0.40, median=0.30, board=0.25, pairs=0),
        _judged(1, "b", cv=0.60, median=0.35, board=0.35, pairs=1),
    ]
    rows = {row["of"]: row for row in summary(judged)}
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
    told = markdown(judged)
    assert "| all | 4 | 0.0274 | -0.0200 | 50% | 75% | 0.060 | 0.1561 | 0.0000 |" in told
    assert "| 1 | 70% | a: 0.400, 0.300 (0.270-0.330), 0.250; b: 0.600" in told


@pytest.mark.slow
@pytest.mark.skipif(not EEDI.is_dir(), reason="the competition's files are not beside the checkout")
def test_forecasts_of_thirty_simulated_competitions_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARITY_DATA", str(tmp_path))
    source = f"data.source={EEDI.as_posix()}"
    cut_from = simulated.world(open_run(ROOT / "runs" / "eedi.toml", (source,)))
    models = contenders(cut_from)
    judged = [one for seed in range(100, 130) for one in judge(simulate(cut_from, models, seed))]
    everything = summary(judged)[0]
    assert everything["rmse"] < everything["cv"]
    assert everything["rmse"] < everything["line"]
    assert everything["wide"] >= 0.85
    assert everything["half"] >= 0.4
