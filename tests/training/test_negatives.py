"""Mining against a slow twin, against FlagEmbedding's algorithm, and by its promises."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.competition.query import Corpus, MisconceptionId, Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.run import files
from parity.run.config.run_file import MiningConfig
from parity.run.errors import BadConfig, BadData, Mismatch, StaleInput
from parity.training import negatives as nouns
from parity.training.negatives import Negatives, QueryNegatives, depth, diversity, mine

TRAIN = frozenset(map(MisconceptionId, (1, 3, 4, 9)))
STRATEGIES = ("range", "percpos", "random", "mix")


def config(**keys: object) -> MiningConfig:
    return MiningConfig.model_validate({"scope": "corpus", "count": 2, **keys})


def ranking_of(scores: dict[str, dict[int, float]]) -> Ranking:
    """Rank ids by score as search does: best first, ties to the smaller id."""
    ranked = {
        row: sorted(found, key=lambda key: (-found[key], key)) for row, found in scores.items()
    }
    return Ranking(
        tuple(map(QueryId, scores)),
        np.array([ranked[row] for row in scores], dtype=np.int64),
        np.array([[scores[row][key] for key in ranked[row]] for row in scores], dtype=np.float32),
    )


def labels(**rows: set[int]) -> Qrels:
    return {
        QueryId(row.strip("q")): frozenset(map(MisconceptionId, ids)) for row, ids in rows.items()
    }


def world(seed: int, *, rows: int = 12, size: int = 40) -> tuple[Ranking, Qrels, Corpus]:
    """Some ids share sentences, some queries have several positives, some scores are negative."""
    draws = random.Random(seed)
    corpus = {
        MisconceptionId(key): f"Mixes up rule {draws.randrange(size)}"
        for key in sorted(draws.sample(range(10 * size), size))
    }
    ids = sorted(corpus)
    queries = [f"{number}_{answer}" for number in range(rows // 2) for answer in "AB"]
    scores = {query: {int(key): draws.uniform(-0.5, 1.0) for key in ids} for query in queries}
    qrels = {QueryId(query): frozenset(draws.sample(ids, draws.randint(1, 3))) for query in queries}
    return ranking_of(scores), qrels, corpus


def right_of(qrels: Qrels) -> frozenset[MisconceptionId]:
    return frozenset(key for ids in qrels.values() for key in ids)


def mined(
    ranking: Ranking, qrels: Qrels, corpus: Corpus, settings_: MiningConfig
) -> dict[QueryId, QueryNegatives]:
    found = mine(ranking, qrels, corpus, settings_, positives=right_of(qrels), miner="m")
    return {row.query_id: row for row in found.rows}


# The tiny corpus: 1 and 9 say the same. Ranks of the query: 7, 1, 4, 9, 3.
SCORES = {"10_B": {7: 0.99, 1: 0.8, 4: 0.78, 9: 0.77, 3: 0.5}}


def test_range_counts_the_positive_in_the_ranks_and_drops_its_twin() -> None:
    rows = mine(
        ranking_of(SCORES),
        labels(q10_B={1}),
        tiny.corpus(),
        config(strategy="range", low=2, high=5),
        positives=TRAIN,
        miner="m",
    ).rows
    assert rows == (QueryNegatives(QueryId("10_B"), (4, 3), (3, 5), (pytest.approx(0.78), 0.5)),)  # type: ignore[arg-type]


def test_percpos_takes_the_hardest_that_score_clearly_below_the_positive() -> None:
    # 0.95 x 0.8 is 0.76: 4 at 0.78 is too close, 9 is a twin, 7 is above.
    found = mined(ranking_of(SCORES), labels(q10_B={1}), tiny.corpus(), config(strategy="percpos"))
    assert found[QueryId("10_B")].ids[0] == 3
    assert found[QueryId("10_B")].ranks == (5, 0)  # one qualified, one was drawn


def test_the_lowest_of_several_positives_sets_the_limit() -> None:
    corpus = {MisconceptionId(key): f"Rule {key}" for key in range(5)}
    ranking = ranking_of({"1_A": {0: 0.9, 1: 0.8, 2: 0.5, 3: 0.49, 4: 0.4}})
    found = mined(ranking, labels(q1_A={0, 2}), corpus, config(strategy="percpos", count=1))
    assert found[QueryId("1_A")].ids == (4,)  # 0.475 is the limit


def test_below_a_negative_positive_means_lower_still() -> None:
    corpus = {MisconceptionId(key): f"Rule {key}" for key in range(4)}
    ranking = ranking_of({"1_A": {0: -0.2, 1: -0.1, 2: -0.209, 3: -0.211}})
    found = mined(ranking, labels(q1_A={0}), corpus, config(strategy="percpos", count=1))
    assert found[QueryId("1_A")].ids == (3,)  # the limit is -0.21


def test_scope_positives_leaves_out_what_is_never_right_in_train() -> None:
    ranking = ranking_of(SCORES)
    for strategy in STRATEGIES:
        settings_ = MiningConfig(strategy=strategy, low=1, count=5)  # type: ignore[arg-type]
        rows = mine(
            ranking, labels(q10_B={1}), tiny.corpus(), settings_, positives=TRAIN, miner="m"
        ).rows
        assert sorted(rows[0].ids) == [3, 4]  # not 7, and not 9, which says what 1 says


def test_mix_takes_the_hardest_and_draws_the_rest() -> None:
    ranking, qrels, corpus = world(5)
    hard = mined(ranking, qrels, corpus, config(strategy="percpos", count=4))
    both = mined(ranking, qrels, corpus, config(strategy="mix", count=8))
    drawn = mined(ranking, qrels, corpus, config(strategy="random", count=8))
    for query_id, row in both.items():
        kept = [rank for rank in hard[query_id].ranks if rank]
        assert [rank for rank in row.ranks if rank] == kept
        assert len(row.ids) == len(set(row.ids)) == 8
        assert drawn[query_id].ranks == (0,) * 8


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    strategy=st.sampled_from(STRATEGIES),
    scope=st.sampled_from(["corpus", "positives"]),
    count=st.integers(1, 45),
)
def test_no_negative_is_right_or_says_what_a_right_one_says(
    seed: int, strategy: str, scope: str, count: int
) -> None:
    ranking, qrels, corpus = world(seed)
    settings_ = config(strategy=strategy, scope=scope, count=count)
    for query_id, row in mined(ranking, qrels, corpus, settings_).items():
        said = {corpus[key] for key in qrels[query_id]}
        inside = corpus.keys() if scope == "corpus" else right_of(qrels)
        wrong = [key for key in inside if corpus[key] not in said]
        assert all(corpus[key] not in said and key in inside for key in row.ids)
        assert len(set(row.ids)) == len(row.ids) == min(count, len(wrong))
        order = ranking.ids[ranking.query_ids.index(query_id)].tolist()
        for key, rank, score in zip(row.ids, row.ranks, row.scores, strict=True):
            assert (rank == 0) == (score is None)
            assert rank == 0 or order[rank - 1] == key


def twin(
    ranking: Ranking, qrels: Qrels, corpus: Corpus, row: int, percpos: float
) -> list[tuple[int, int]]:
    """Say what qualifies for `percpos`, one rank at a time."""
    right = qrels[ranking.query_ids[row]]
    ids, scores = ranking.ids[row].tolist(), ranking.scores[row].tolist()
    lowest = min(score for key, score in zip(ids, scores, strict=True) if key in right)
    limit = lowest - abs(lowest) * (1 - percpos)
    found = []
    for rank, (key, score) in enumerate(zip(ids, scores, strict=True), start=1):
        same = any(corpus[key].split() == corpus[other].split() for other in right)
        if not same and score < limit:
            found.append((key, rank))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_percpos_agrees_with_its_slow_twin(seed: int) -> None:
    ranking, qrels, corpus = world(seed)
    found = mined(ranking, qrels, corpus, config(strategy="percpos", count=6))
    for row, query_id in enumerate(ranking.query_ids):
        expected = twin(ranking, qrels, corpus, row, 0.95)[:6]
        taken = list(zip(found[query_id].ids, found[query_id].ranks, strict=True))
        assert [pair for pair in taken if pair[1]] == expected


def flag_candidates(
    ranking: Ranking, qrels: Qrels, corpus: Corpus, row: int, window: tuple[int, int]
) -> list[str]:
    """Restate `find_knn_neg` of FlagEmbedding's scripts/hn_mine.py for one query.

    Its pool is a set of texts, searched to the end of the window; the slice counts from 0; a text
    goes if it is one of the positives' texts, compared as it is. Ids that share a text are one
    pool entry there, so this holds for corpora without equal sentences.
    """
    texts = [corpus[key] for key in ranking.ids[row].tolist()]
    right = [corpus[key] for key in qrels[ranking.query_ids[row]]]
    return [text for text in texts[: window[1]][window[0] :] if text not in right]


@pytest.mark.parametrize("window", [(0, 10), (2, 20), (10, 40), (2, 200)])
def test_range_has_the_candidates_of_flagembeddings_mining(window: tuple[int, int]) -> None:
    ranking, qrels, corpus = world(3)
    corpus = {key: f"Rule {key}" for key in corpus}
    low, high = window[0] + 1, window[1]  # its slice a:b is our ranks a+1 to b
    everything = mined(
        ranking, qrels, corpus, config(strategy="range", low=low, high=high, count=40)
    )
    fewer = mined(ranking, qrels, corpus, config(strategy="range", low=low, high=high, count=5))
    for row, query_id in enumerate(ranking.query_ids):
        expected = flag_candidates(ranking, qrels, corpus, row, window)
        ranked = [rank for rank in everything[query_id].ranks if rank]
        found = [corpus[key] for key in everything[query_id].ids[: len(ranked)]]
        assert found == expected
        # Where there are more than wanted it samples as many; too few are filled up.
        few = [corpus[key] for key in fewer[query_id].ids]
        assert len(few) == 5
        assert len(set(few) & set(expected)) >= min(5, len(expected))


def test_range_samples_its_whole_window_evenly() -> None:
    corpus = {MisconceptionId(key): f"Rule {key}" for key in range(60)}
    scores = {f"{row}_A": {key: -float(key) for key in range(60)} for row in range(400)}
    qrels = {QueryId(row): frozenset({MisconceptionId(0)}) for row in scores}
    settings_ = config(strategy="range", low=2, high=41, count=10)
    rows = mined(ranking_of(scores), qrels, corpus, settings_).values()
    seen = np.bincount([rank for row in rows for rank in row.ranks], minlength=61)
    assert seen[:2].sum() == seen[42:].sum() == 0
    assert seen[2:42].min() > 60  # 100 expected, deviation 8.7
    assert seen[2:42].max() < 140


def test_a_row_does_not_depend_on_the_other_rows() -> None:
    ranking, qrels, corpus = world(8)
    few = Ranking(ranking.query_ids[::-2], ranking.ids[::-2], ranking.scores[::-2])
    for strategy in STRATEGIES:
        settings_ = config(strategy=strategy, count=7)
        whole = mine(ranking, qrels, corpus, settings_, positives=TRAIN, miner="m")
        part = mine(few, qrels, corpus, settings_, positives=TRAIN, miner="m")
        assert part.rows == whole.rows[::-2]


def test_another_seed_draws_others() -> None:
    ranking, qrels, corpus = world(8)
    first = mined(ranking, qrels, corpus, config(strategy="random", count=7))
    second = mined(ranking, qrels, corpus, config(strategy="random", count=7, seed=1))
    assert first.keys() == second.keys()
    assert first != second


def test_depth_is_what_each_strategy_reads() -> None:
    asked = {
        "range": config(strategy="range", high=200),
        "percpos": config(strategy="percpos"),
        "random": config(strategy="random"),
        "mix": config(strategy="mix"),
        "all random": config(strategy="mix", random_share=1.0),
    }
    assert {name: depth(one, 300) for name, one in asked.items()} == {
        "range": 200,
        "percpos": 300,
        "random": 1,
        "mix": 300,
        "all random": 1,
    }
    assert depth(asked["range"], 50) == 50


def test_a_ranking_of_that_depth_is_enough() -> None:
    ranking, qrels, corpus = world(2)
    for one in (
        config(strategy="range", low=1, high=9, count=4),
        config(strategy="random"),
        config(strategy="mix", random_share=1.0),
    ):
        deep = depth(one, len(corpus))
        assert mined(ranking.top(deep), qrels, corpus, one) == mined(ranking, qrels, corpus, one)
        if deep > 1:
            with pytest.raises(Mismatch, match=f"needs {deep}; run: invoke mine"):
                mined(ranking.top(deep - 1), qrels, corpus, one)


def test_what_does_not_fit_together_is_refused() -> None:
    ranking, qrels, corpus = world(2)
    plain = config(strategy="percpos")
    first = ranking.query_ids[0]
    with pytest.raises(Mismatch, match=f"query {first} was ranked and has no label"):
        mined(ranking, {key: qrels[key] for key in qrels if key != first}, corpus, plain)
    with pytest.raises(Mismatch, match="misconception 9999 is not in the corpus"):
        mined(ranking, {**qrels, first: frozenset({MisconceptionId(9999)})}, corpus, plain)
    twice = Ranking((first, first), ranking.ids[:2], ranking.scores[:2])
    with pytest.raises(Mismatch, match="a query twice"):
        mined(twice, qrels, corpus, plain)
    again = Ranking(ranking.query_ids, ranking.ids.copy(), ranking.scores)
    again.ids[0, 1] = again.ids[0, 0]
    with pytest.raises(Mismatch, match="repeats an id"):
        mined(again, qrels, corpus, plain)
    broken = Ranking(ranking.query_ids, ranking.ids, ranking.scores * np.float32("nan"))
    with pytest.raises(Mismatch, match="no number"):
        mined(broken, qrels, corpus, plain)
    with pytest.raises(BadConfig, match=r"mining.low = 9: above mining.high = 8"):
        mined(ranking, qrels, corpus, config(strategy="range", low=9, high=8))


def test_diversity_tells_a_miner_that_gives_everyone_the_same() -> None:
    corpus = {MisconceptionId(key): f"Rule {key}" for key in range(40)}
    qrels = {QueryId(f"{row}_A"): frozenset({MisconceptionId(39)}) for row in range(30)}
    same = ranking_of({row: {key: -float(key) for key in range(40)} for row in qrels})
    stuck = config(strategy="range", low=1, high=10, count=10)
    told = diversity(mine(same, qrels, corpus, stuck, positives=TRAIN, miner="m"))
    assert (told.rows, told.negatives, told.distinct, told.top_ten) == (30, 300, 10, 1.0)
    free = config(strategy="random", count=10)
    told = diversity(mine(same, qrels, corpus, free, positives=TRAIN, miner="m"))
    assert told.distinct == 39
    assert told.top_ten < 0.5
    assert "39 distinct ids" in told.text


def test_diversity_counts_what_was_padded_and_what_is_short() -> None:
    ranking = ranking_of(SCORES)
    qrels = labels(q10_B={1})
    padded = config(strategy="range", low=5, high=5, count=2)  # rank 5 alone, then one drawn
    told = diversity(mine(ranking, qrels, tiny.corpus(), padded, positives=TRAIN, miner="m"))
    assert (told.padded, told.short) == (1, 0)
    short = config(strategy="random", count=4)  # 3, 4 and 7 are all there is
    told = diversity(mine(ranking, qrels, tiny.corpus(), short, positives=TRAIN, miner="m"))
    assert (told.padded, told.short) == (0, 1)


ROWS = st.lists(
    st.tuples(
        st.integers(0, 3000).map(MisconceptionId),
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
def test_negatives_survive_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory,
    rows: dict[str, tuple[tuple[MisconceptionId, ...], tuple[int, ...], tuple[float | None, ...]]],
    miner: str,
    mining: MiningConfig | None,
) -> None:
    path = tmp_path_factory.mktemp("negatives") / "negatives.jsonl"
    given_ = Negatives(
        tuple(QueryNegatives(QueryId(key), *columns) for key, columns in rows.items()),
        miner,
        mining.strategy if mining else "imported",
        mining,
    )
    nouns.write(path, given_)
    assert nouns.read(path) == given_


def test_a_teacher_s_scores_survive_beside_rows_without_any(tmp_path: Path) -> None:
    ids = (MisconceptionId(4), MisconceptionId(2))
    bare = QueryNegatives(QueryId("1_A"), ids, (0, 0), (None, None))
    taught = replace(
        bare,
        query_id=QueryId("2_A"),
        teacher=(0.1 + 0.2, -1 / 3),
        positives=((MisconceptionId(7), 1e-300), (MisconceptionId(9), 2.0)),
    )
    given_ = Negatives((bare, taught), "m", "imported")
    path = tmp_path / "negatives.jsonl"
    nouns.write(path, given_)
    assert nouns.read(path) == given_
    lines = files.read_jsonl(path)
    assert sorted(lines[1]) == ["ids", "query_id", "ranks", "scores"]  # as before teachers came
    assert taught.scored() == {4: 0.1 + 0.2, 2: -1 / 3, 7: 1e-300, 9: 2.0}
    assert taught.taught((MisconceptionId(9), *ids)) == (2.0, 0.1 + 0.2, -1 / 3)


def test_a_file_from_before_teachers_came_is_read(tmp_path: Path) -> None:
    path = tmp_path / "negatives.jsonl"
    path.write_text(
        '{"config":null,"miner":"m","strategy":"imported"}\n'
        '{"ids":[4,2],"query_id":"1_A","ranks":[0,0],"scores":[null,0.5]}\n'
    )
    (row,) = nouns.read(path).rows
    assert row == QueryNegatives(
        QueryId("1_A"), (MisconceptionId(4), MisconceptionId(2)), (0, 0), (None, 0.5)
    )


def test_mined_negatives_survive_to_the_last_bit(tmp_path: Path) -> None:
    ranking, qrels, corpus = world(4)
    given_ = mine(
        ranking, qrels, corpus, config(strategy="mix", count=9), positives=TRAIN, miner="m"
    )
    nouns.write(tmp_path / "negatives.jsonl", given_)
    assert nouns.read(tmp_path / "negatives.jsonl") == given_


def test_a_file_without_its_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "negatives.jsonl"
    with pytest.raises(StaleInput, match="run: invoke mine"):
        nouns.read(path)
    path.write_text('{"query_id":"1_A","ids":[],"ranks":[],"scores":[]}\n')
    with pytest.raises(BadData, match="line 1: no header"):
        nouns.read(path)
    path.write_text("")
    with pytest.raises(BadData, match="line 1: no header"):
        nouns.read(path)


def test_a_row_whose_teacher_leaves_one_out_is_refused() -> None:
    ids = (MisconceptionId(4), MisconceptionId(2))
    with pytest.raises(BadData, match="query 1_A: negatives and teacher's scores differ in number"):
        QueryNegatives(QueryId("1_A"), ids, (0, 0), (None, None), (1.0,))


def test_a_row_with_unequal_columns_is_refused() -> None:
    with pytest.raises(BadData, match="query 1_A: negatives, ranks and scores differ in number"):
        QueryNegatives(QueryId("1_A"), (MisconceptionId(1),), (), ())
