"""Tests of mining: against a slow reference, FlagEmbedding's algorithm, and its properties."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.competition.corpus import Corpus
from parity.competition.query import PassageId, Passages, Position, Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.run import files
from parity.run.config.mining import MiningConfig
from parity.run.errors import BadConfig, BadData, Mismatch, StaleInput
from parity.training import negatives as negatives_file
from parity.training.negatives import Negatives, QueryNegatives, depth, diversity, mine

TRAIN = frozenset(map(tiny.at, (1, 3, 4, 9)))
STRATEGIES = ("range", "percpos", "random", "mix")


def config(**keys: object) -> MiningConfig:
    return MiningConfig.model_validate({"scope": "corpus", "count": 2, **keys})


def ranking_of(scores: dict[str, dict[int, float]]) -> Ranking:
    """Rank ids by score as search does: best first, ties to the smaller id."""
    ranked = {
        row: sorted(score_of, key=lambda key: (-score_of[key], key))
        for row, score_of in scores.items()
    }
    return Ranking(
        tuple(map(QueryId, scores)),
        np.array([ranked[row] for row in scores], dtype=np.int64),
        np.array([[scores[row][key] for key in ranked[row]] for row in scores], dtype=np.float32),
    )


def labels(**rows: set[int]) -> Qrels:
    return {QueryId(row.strip("q")): frozenset(map(Position, ids)) for row, ids in rows.items()}


NAMED = Corpus({PassageId(f"p{number}"): "" for number in range(3001)})


def world(seed: int, *, rows: int = 12, size: int = 40) -> tuple[Ranking, Qrels, Passages]:
    """Return a ranking with shared texts, several positives per query and negative scores."""
    draws = random.Random(seed)
    corpus = {
        Position(key): f"Mixes up rule {draws.randrange(size)}"
        for key in sorted(draws.sample(range(10 * size), size))
    }
    ids = sorted(corpus)
    queries = [f"{number}_{answer}" for number in range(rows // 2) for answer in "AB"]
    scores = {query: {int(key): draws.uniform(-0.5, 1.0) for key in ids} for query in queries}
    qrels = {QueryId(query): frozenset(draws.sample(ids, draws.randint(1, 3))) for query in queries}
    return ranking_of(scores), qrels, corpus


def right_of(qrels: Qrels) -> frozenset[Position]:
    return frozenset(key for ids in qrels.values() for key in ids)


def mined(
    ranking: Ranking, qrels: Qrels, corpus: Passages, settings_: MiningConfig
) -> dict[QueryId, QueryNegatives]:
    result = mine(ranking, qrels, corpus, settings_, positives=right_of(qrels), miner="m")
    return {row.query_id: row for row in result.rows}


ID1, ID3, ID4, ID7, ID9 = map(tiny.at, (1, 3, 4, 7, 9))
# In the tiny corpus, 1 and 9 have the same text. Ranks of the query: 7, 1, 4, 9, 3.
SCORES: dict[str, dict[int, float]] = {
    "10_B": {ID7: 0.99, ID1: 0.8, ID4: 0.78, ID9: 0.77, ID3: 0.5}
}


def test_range_counts_the_positive_as_a_rank_and_drops_its_duplicate() -> None:
    rows = mine(
        ranking_of(SCORES),
        labels(q10_B={ID1}),
        tiny.corpus(),
        config(strategy="range", low=2, high=5),
        positives=TRAIN,
        miner="m",
    ).rows
    (row,) = rows
    assert (row.positions, row.ranks) == ((ID4, ID3), (3, 5))
    assert [*row.scores] == [pytest.approx(0.78), 0.5]


def test_percpos_takes_the_hardest_that_score_clearly_below_the_positive() -> None:
    # 0.95 x 0.8 is 0.76: 4 at 0.78 is too close, 9 has the same text, 7 is above.
    result = mined(
        ranking_of(SCORES), labels(q10_B={ID1}), tiny.corpus(), config(strategy="percpos")
    )
    assert result[QueryId("10_B")].positions[0] == ID3
    assert result[QueryId("10_B")].ranks == (5, 0)  # one qualifies, one is drawn at random


def test_the_lowest_of_several_positives_sets_the_limit() -> None:
    corpus = {Position(key): f"Rule {key}" for key in range(5)}
    ranking = ranking_of({"1_A": {0: 0.9, 1: 0.8, 2: 0.5, 3: 0.49, 4: 0.4}})
    result = mined(ranking, labels(q1_A={0, 2}), corpus, config(strategy="percpos", count=1))
    assert result[QueryId("1_A")].positions == (4,)  # 0.475 is the limit


def test_the_limit_is_below_a_positive_with_a_negative_score() -> None:
    corpus = {Position(key): f"Rule {key}" for key in range(4)}
    ranking = ranking_of({"1_A": {0: -0.2, 1: -0.1, 2: -0.209, 3: -0.211}})
    result = mined(ranking, labels(q1_A={0}), corpus, config(strategy="percpos", count=1))
    assert result[QueryId("1_A")].positions == (3,)  # the limit is -0.21


def test_scope_positives_excludes_passages_that_are_never_positives_in_train() -> None:
    ranking = ranking_of(SCORES)
    for strategy in STRATEGIES:
        settings_ = MiningConfig(strategy=strategy, low=1, count=5)  # type: ignore[arg-type]
        rows = mine(
            ranking, labels(q10_B={ID1}), tiny.corpus(), settings_, positives=TRAIN, miner="m"
        ).rows
        assert sorted(rows[0].positions) == [ID3, ID4]  # not 7, and not 9, which has the text of 1


def test_mix_takes_the_hardest_and_draws_the_others() -> None:
    ranking, qrels, corpus = world(5)
    hard = mined(ranking, qrels, corpus, config(strategy="percpos", count=4))
    mixed = mined(ranking, qrels, corpus, config(strategy="mix", count=8))
    drawn = mined(ranking, qrels, corpus, config(strategy="random", count=8))
    for query_id, row in mixed.items():
        expected = [rank for rank in hard[query_id].ranks if rank]
        assert [rank for rank in row.ranks if rank] == expected
        assert len(row.positions) == len(set(row.positions)) == 8
        assert drawn[query_id].ranks == (0,) * 8


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    strategy=st.sampled_from(STRATEGIES),
    scope=st.sampled_from(["corpus", "positives"]),
    count=st.integers(1, 45),
)
def test_negatives_are_never_positives_and_never_have_the_text_of_a_positive(
    seed: int, strategy: str, scope: str, count: int
) -> None:
    ranking, qrels, corpus = world(seed)
    settings_ = config(strategy=strategy, scope=scope, count=count)
    for query_id, row in mined(ranking, qrels, corpus, settings_).items():
        right_texts = {corpus[key] for key in qrels[query_id]}
        scope_ids = corpus.keys() if scope == "corpus" else right_of(qrels)
        wrong = [key for key in scope_ids if corpus[key] not in right_texts]
        assert all(corpus[key] not in right_texts and key in scope_ids for key in row.positions)
        assert len(set(row.positions)) == len(row.positions) == min(count, len(wrong))
        order = ranking.positions[ranking.query_ids.index(query_id)].tolist()
        for key, rank, score in zip(row.positions, row.ranks, row.scores, strict=True):
            assert (rank == 0) == (score is None)
            assert rank == 0 or order[rank - 1] == key


def slow_percpos(
    ranking: Ranking, qrels: Qrels, corpus: Passages, row: int, percpos: float
) -> list[tuple[int, int]]:
    """Return what qualifies for `percpos`, checked rank by rank."""
    right = qrels[ranking.query_ids[row]]
    ids, scores = ranking.positions[row].tolist(), ranking.scores[row].tolist()
    lowest = min(score for key, score in zip(ids, scores, strict=True) if key in right)
    limit = lowest - abs(lowest) * (1 - percpos)
    pairs = []
    for rank, (key, score) in enumerate(zip(ids, scores, strict=True), start=1):
        has_right_text = any(corpus[key].split() == corpus[other].split() for other in right)
        if not has_right_text and score < limit:
            pairs.append((key, rank))
    return pairs


@pytest.mark.parametrize("seed", range(5))
def test_percpos_agrees_with_a_slow_reference(seed: int) -> None:
    ranking, qrels, corpus = world(seed)
    result = mined(ranking, qrels, corpus, config(strategy="percpos", count=6))
    for row, query_id in enumerate(ranking.query_ids):
        expected = slow_percpos(ranking, qrels, corpus, row, 0.95)[:6]
        taken = list(zip(result[query_id].positions, result[query_id].ranks, strict=True))
        assert [pair for pair in taken if pair[1]] == expected


def flag_candidates(
    ranking: Ranking, qrels: Qrels, corpus: Passages, row: int, window: tuple[int, int]
) -> list[str]:
    """Restate `find_knn_neg` of FlagEmbedding's scripts/hn_mine.py for one query.

    FlagEmbedding searches a set of texts to the end of the window; its slice counts from 0. It
    drops a text that equals the text of a positive. Ids that share a text are one entry of its
    set, so this function is correct only for corpora without equal texts.
    """
    texts = [corpus[key] for key in ranking.positions[row].tolist()]
    right = [corpus[key] for key in qrels[ranking.query_ids[row]]]
    return [text for text in texts[: window[1]][window[0] :] if text not in right]


@pytest.mark.parametrize("window", [(0, 10), (2, 20), (10, 40), (2, 200)])
def test_range_has_the_candidates_of_flagembeddings_mining(window: tuple[int, int]) -> None:
    ranking, qrels, corpus = world(3)
    corpus = {key: f"Rule {key}" for key in corpus}
    low, high = window[0] + 1, window[1]  # its slice a:b is ranks a+1 to b here
    everything = mined(
        ranking, qrels, corpus, config(strategy="range", low=low, high=high, count=40)
    )
    fewer = mined(ranking, qrels, corpus, config(strategy="range", low=low, high=high, count=5))
    for row, query_id in enumerate(ranking.query_ids):
        expected = flag_candidates(ranking, qrels, corpus, row, window)
        ranked = [rank for rank in everything[query_id].ranks if rank]
        result = [corpus[key] for key in everything[query_id].positions[: len(ranked)]]
        assert result == expected
        # Too many candidates are sampled; too few are filled up.
        few = [corpus[key] for key in fewer[query_id].positions]
        assert len(few) == 5
        assert len(set(few) & set(expected)) >= min(5, len(expected))


def test_range_samples_its_window_uniformly() -> None:
    corpus = {Position(key): f"Rule {key}" for key in range(60)}
    scores = {f"{row}_A": {key: -float(key) for key in range(60)} for row in range(400)}
    qrels = {QueryId(row): frozenset({Position(0)}) for row in scores}
    settings_ = config(strategy="range", low=2, high=41, count=10)
    rows = mined(ranking_of(scores), qrels, corpus, settings_).values()
    seen = np.bincount([rank for row in rows for rank in row.ranks], minlength=61)
    assert seen[:2].sum() == seen[42:].sum() == 0
    assert seen[2:42].min() > 60  # 100 expected, deviation 8.7
    assert seen[2:42].max() < 140


def test_a_row_does_not_depend_on_the_other_rows() -> None:
    ranking, qrels, corpus = world(8)
    few = Ranking(ranking.query_ids[::-2], ranking.positions[::-2], ranking.scores[::-2])
    for strategy in STRATEGIES:
        settings_ = config(strategy=strategy, count=7)
        complete = mine(ranking, qrels, corpus, settings_, positives=TRAIN, miner="m")
        part = mine(few, qrels, corpus, settings_, positives=TRAIN, miner="m")
        assert part.rows == complete.rows[::-2]


def test_another_seed_draws_other_negatives() -> None:
    ranking, qrels, corpus = world(8)
    first = mined(ranking, qrels, corpus, config(strategy="random", count=7))
    second = mined(ranking, qrels, corpus, config(strategy="random", count=7, seed=1))
    assert first.keys() == second.keys()
    assert first != second


def test_depth_is_the_number_of_ranks_that_a_strategy_reads() -> None:
    configs = {
        "range": config(strategy="range", high=200),
        "percpos": config(strategy="percpos"),
        "random": config(strategy="random"),
        "mix": config(strategy="mix"),
        "all random": config(strategy="mix", random_share=1.0),
    }
    assert {name: depth(item, 300) for name, item in configs.items()} == {
        "range": 200,
        "percpos": 300,
        "random": 1,
        "mix": 300,
        "all random": 1,
    }
    assert depth(configs["range"], 50) == 50


def test_a_ranking_of_that_depth_is_enough() -> None:
    ranking, qrels, corpus = world(2)
    for mining in (
        config(strategy="range", low=1, high=9, count=4),
        config(strategy="random"),
        config(strategy="mix", random_share=1.0),
    ):
        deep = depth(mining, len(corpus))
        assert mined(ranking.top(deep), qrels, corpus, mining) == mined(
            ranking, qrels, corpus, mining
        )
        if deep > 1:
            with pytest.raises(Mismatch, match=f"needs {deep}$"):
                mined(ranking.top(deep - 1), qrels, corpus, mining)


def test_inputs_that_do_not_match_are_refused() -> None:
    ranking, qrels, corpus = world(2)
    plain = config(strategy="percpos")
    first = ranking.query_ids[0]
    with pytest.raises(Mismatch, match=f"query {first} is in the ranking but has no label"):
        mined(ranking, {key: qrels[key] for key in qrels if key != first}, corpus, plain)
    with pytest.raises(Mismatch, match="passage 9999 is not in the corpus"):
        mined(ranking, {**qrels, first: frozenset({Position(9999)})}, corpus, plain)
    twice = Ranking((first, first), ranking.positions[:2], ranking.scores[:2])
    with pytest.raises(Mismatch, match="a query twice"):
        mined(twice, qrels, corpus, plain)
    repeated = Ranking(ranking.query_ids, ranking.positions.copy(), ranking.scores)
    repeated.positions[0, 1] = repeated.positions[0, 0]
    with pytest.raises(Mismatch, match="repeats an id"):
        mined(repeated, qrels, corpus, plain)
    broken = Ranking(ranking.query_ids, ranking.positions, ranking.scores * np.float32("nan"))
    with pytest.raises(Mismatch, match="contains NaN or infinite scores"):
        mined(broken, qrels, corpus, plain)
    with pytest.raises(BadConfig, match=r"mining.low = 9: above mining.high = 8"):
        mined(ranking, qrels, corpus, config(strategy="range", low=9, high=8))


def test_diversity_shows_a_miner_that_gives_every_query_the_same_negatives() -> None:
    corpus = {Position(key): f"Rule {key}" for key in range(40)}
    qrels = {QueryId(f"{row}_A"): frozenset({Position(39)}) for row in range(30)}
    ranking = ranking_of({row: {key: -float(key) for key in range(40)} for row in qrels})
    stuck = config(strategy="range", low=1, high=10, count=10)
    stats = diversity(mine(ranking, qrels, corpus, stuck, positives=TRAIN, miner="m"))
    assert (stats.rows, stats.negatives, stats.distinct, stats.top_ten) == (30, 300, 10, 1.0)
    free = config(strategy="random", count=10)
    stats = diversity(mine(ranking, qrels, corpus, free, positives=TRAIN, miner="m"))
    assert stats.distinct == 39
    assert stats.top_ten < 0.5
    assert "39 distinct ids" in stats.text


def test_diversity_counts_padded_negatives_and_short_rows() -> None:
    ranking = ranking_of(SCORES)
    qrels = labels(q10_B={ID1})
    padded = config(strategy="range", low=5, high=5, count=2)  # only rank 5, then a random one
    stats = diversity(mine(ranking, qrels, tiny.corpus(), padded, positives=TRAIN, miner="m"))
    assert (stats.padded, stats.short) == (1, 0)
    short = config(strategy="random", count=4)  # only 3, 4 and 7 are available
    stats = diversity(mine(ranking, qrels, tiny.corpus(), short, positives=TRAIN, miner="m"))
    assert (stats.padded, stats.short) == (0, 1)


ROWS = st.lists(
    st.tuples(
        st.integers(0, 3000).map(Position),
        st.integers(0, 3000),
        st.none() | st.floats(-1, 1, width=32),
    ),
    max_size=5,
).map(lambda cells: tuple(zip(*cells, strict=True)) or ((), (), ()))


@settings(max_examples=50, deadline=None)
@given(
    rows=st.dictionaries(st.text(min_size=1), ROWS, max_size=4),
    miner=st.text(),
    mining=st.none() | st.sampled_from(STRATEGIES).map(lambda name: config(strategy=name)),
)
def test_negatives_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory,
    rows: dict[str, tuple[tuple[Position, ...], tuple[int, ...], tuple[float | None, ...]]],
    miner: str,
    mining: MiningConfig | None,
) -> None:
    path = tmp_path_factory.mktemp("negatives") / "negatives.jsonl"
    negatives = Negatives(
        tuple(QueryNegatives(QueryId(key), *columns) for key, columns in rows.items()),
        miner,
        mining.strategy if mining else "imported",
        mining,
    )
    negatives_file.write(path, negatives, NAMED)
    assert negatives_file.read(path, NAMED) == negatives


def test_teacher_scores_are_read_as_they_were_written_even_if_some_rows_have_none(
    tmp_path: Path,
) -> None:
    ids = (Position(4), Position(2))
    plain = QueryNegatives(QueryId("1_A"), ids, (0, 0), (None, None))
    scored = replace(
        plain,
        query_id=QueryId("2_A"),
        teacher=(0.1 + 0.2, -1 / 3),
        positives=((Position(7), 1e-300), (Position(9), 2.0)),
    )
    negatives = Negatives((plain, scored), "m", "imported")
    path = tmp_path / "negatives.jsonl"
    negatives_file.write(path, negatives, NAMED)
    assert negatives_file.read(path, NAMED) == negatives
    lines = files.read_jsonl(path)
    assert sorted(lines[1]) == ["passage_ids", "query_id", "ranks", "scores"]  # no teacher
    assert scored.scored() == {4: 0.1 + 0.2, 2: -1 / 3, 7: 1e-300, 9: 2.0}
    assert scored.teacher_scores((Position(9), *ids)) == (2.0, 0.1 + 0.2, -1 / 3)


def test_a_file_without_a_teacher_is_read(tmp_path: Path) -> None:
    path = tmp_path / "negatives.jsonl"
    path.write_text(
        '{"config":null,"miner":"m","strategy":"imported"}\n'
        '{"passage_ids":["p4","p2"],"query_id":"1_A","ranks":[0,0],"scores":[null,0.5]}\n'
    )
    (row,) = negatives_file.read(path, NAMED).rows
    assert row == QueryNegatives(QueryId("1_A"), (Position(4), Position(2)), (0, 0), (None, 0.5))


def test_mined_negatives_are_read_bit_for_bit(tmp_path: Path) -> None:
    ranking, qrels, corpus = world(4)
    negatives = mine(
        ranking, qrels, corpus, config(strategy="mix", count=9), positives=TRAIN, miner="m"
    )
    negatives_file.write(tmp_path / "negatives.jsonl", negatives, NAMED)
    assert negatives_file.read(tmp_path / "negatives.jsonl", NAMED) == negatives


def test_a_file_without_its_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "negatives.jsonl"
    with pytest.raises(StaleInput, match="negatives"):
        negatives_file.read(path, NAMED)
    path.write_text('{"query_id":"1_A","passage_ids":[],"ranks":[],"scores":[]}\n')
    with pytest.raises(BadData, match="line 1: no header"):
        negatives_file.read(path, NAMED)
    path.write_text("")
    with pytest.raises(BadData, match="line 1: no header"):
        negatives_file.read(path, NAMED)


def test_a_row_with_a_missing_teacher_score_is_refused() -> None:
    ids = (Position(4), Position(2))
    with pytest.raises(BadData, match="query 1_A: negatives and teacher's scores differ in number"):
        QueryNegatives(QueryId("1_A"), ids, (0, 0), (None, None), (1.0,))


def test_a_row_with_unequal_columns_is_refused() -> None:
    with pytest.raises(BadData, match="query 1_A: negatives, ranks and scores differ in number"):
        QueryNegatives(QueryId("1_A"), (Position(1),), (), ())
