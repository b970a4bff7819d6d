"""Tests of retrieval: rendering, order, ties, few-shot examples and measurement on the probe."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import tiny

from parity.competition import few_shot as shelf
from parity.competition.few_shot import Example
from parity.competition.query import Passages, Position, Query
from parity.competition.ranking import Ranking
from parity.retrieval import probe_measurement, prompts, search
from parity.retrieval import retrieve as retrieving
from parity.retrieval.encoder import Encoder
from parity.retrieval.retrieve import RenderedQueries, index, passages, render_queries, retrieve
from parity.run.config.prompt import PromptConfig
from parity.run.errors import BadConfig

PLAIN = PromptConfig()
K = 3


def showing(**values: Any) -> PromptConfig:
    return PromptConfig.model_validate({"examples": "random", "example_count": 1, **values})


def chosen(config: PromptConfig) -> dict[Any, tuple[Example, ...]]:
    pool = [
        Example(query, min(tiny.qrels()[query.query_id]), "Adds the denominators")
        for query in tiny.queries()
    ]
    return shelf.shown(tiny.queries(), pool, config)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    base = models.write(tmp_path_factory.mktemp("bases") / "llama", "llama")
    return models.load(base, token_budget=1024)


def ranked(
    encoder: Encoder,
    config: PromptConfig,
    queries: list[Query],
    corpus: Passages,
    shown: Any,
    k: int,
) -> Ranking:
    return retrieve(encoder, config, queries, index(encoder, config, corpus), shown, k=k).ranking


def test_an_index_may_be_shared(encoder: Encoder) -> None:
    config = showing(query_max_length=512)
    shown = chosen(config)
    shared = index(encoder, config, tiny.corpus())
    first, second = (
        retrieve(encoder, config, tiny.queries(), shared, shown, k=K).ranking for _ in range(2)
    )
    separate = ranked(encoder, config, tiny.queries(), tiny.corpus(), shown, K)
    assert first.query_ids == tuple(query.query_id for query in tiny.queries())
    assert first.digest() == second.digest() == separate.digest()
    assert first.scores.tobytes() == second.scores.tobytes() == separate.scores.tobytes()


def test_a_retrieval_has_the_queries_and_their_embeddings(encoder: Encoder) -> None:
    embedded = index(encoder, PLAIN, tiny.corpus())
    result = retrieve(encoder, PLAIN, tiny.queries(), embedded, {}, k=K)
    assert result.queries == render_queries(encoder, PLAIN, tiny.queries(), {})
    assert result.vectors.tobytes() == encoder.embed(result.queries.tokens).tobytes()
    positions, scores = search.top(result.vectors, embedded.vectors, k=K)
    np.testing.assert_array_equal(result.ranking.positions, positions)
    np.testing.assert_array_equal(result.ranking.scores, scores)


def test_a_ranking_equals_one_computed_text_by_text(encoder: Encoder) -> None:
    corpus = tiny.corpus()
    ranking = ranked(encoder, PLAIN, tiny.queries(), corpus, {}, k=len(corpus))
    passage_vectors = {
        key: encoder.embed(passages(encoder, PLAIN, {key: corpus[key]}))[0] for key in corpus
    }
    for row, query in enumerate(tiny.queries()):
        text = prompts.query(PLAIN, query, (), count=encoder.count).text
        vector = encoder.embed(encoder.tokenize([text], PLAIN.query_max_length))[0].astype(
            np.float64
        )
        cosine = {
            key: float(vector @ other.astype(np.float64)) for key, other in passage_vectors.items()
        }
        np.testing.assert_allclose(
            ranking.scores[row], [cosine[key] for key in ranking.positions[row].tolist()], atol=1e-6
        )
        assert sorted(ranking.positions[row].tolist()) == sorted(corpus)
        assert list(ranking.scores[row]) == sorted(ranking.scores[row], reverse=True)


def test_f34_of_two_ids_with_one_sentence_the_smaller_comes_first(encoder: Encoder) -> None:
    ranking = ranked(encoder, PLAIN, tiny.queries(), tiny.corpus(), {}, k=5)
    for ids in ranking.positions.tolist():
        assert ids.index(tiny.at(1)) + 1 == ids.index(tiny.at(9))


def test_the_ranking_of_a_query_does_not_depend_on_the_other_queries(encoder: Encoder) -> None:
    together = ranked(encoder, PLAIN, tiny.queries(), tiny.corpus(), {}, k=K)
    turned = ranked(encoder, PLAIN, tiny.queries()[::-1], tiny.corpus(), {}, k=K)
    for row, query in enumerate(tiny.queries()):
        single = ranked(encoder, PLAIN, [query], tiny.corpus(), {}, k=K)
        np.testing.assert_array_equal(single.positions[0], together.positions[row])
        np.testing.assert_array_equal(turned.positions[::-1][row], together.positions[row])
        np.testing.assert_allclose(single.scores[0], together.scores[row], atol=1e-6)


def test_a_corpus_smaller_than_k_is_ranked_completely(encoder: Encoder) -> None:
    assert ranked(encoder, PLAIN, tiny.queries(), tiny.corpus(), {}, k=25).positions.shape == (
        11,
        5,
    )


def test_no_queries_give_an_empty_ranking(encoder: Encoder) -> None:
    for config in (PLAIN, showing()):
        assert ranked(encoder, config, [], tiny.corpus(), {}, k=K).positions.shape == (0, K)


def test_c13_examples_that_no_query_carries_are_an_error(encoder: Encoder) -> None:
    config = showing(query_max_length=80, query="{wrong}")
    message = (
        r"prompt\.examples = 'random', but 0 of 11 queries have one\. Raise "
        r"prompt\.query_max_length \(now 80\) or set prompt\.examples to none"
    )
    for examples in ({}, dict.fromkeys(chosen(config), ())):
        with pytest.raises(BadConfig, match=message):
            render_queries(encoder, config, tiny.queries(), examples)
    long = "long " * 40
    stretched = {
        key: tuple(replace(example, passage=long) for example in shown)
        for key, shown in chosen(config).items()
    }
    with pytest.raises(BadConfig, match=message):
        ranked(encoder, config, tiny.queries(), tiny.corpus(), stretched, k=K)


def test_c13_queries_with_examples_are_counted(encoder: Encoder) -> None:
    config = showing(query_max_length=512)
    shown = chosen(config)
    assert render_queries(encoder, config, tiny.queries(), shown).carrying == 11
    few = {query.query_id: shown[query.query_id] for query in tiny.queries()[:2]}
    rendered = render_queries(encoder, config, tiny.queries(), few)
    assert rendered.carrying == 2
    assert rendered.summary() == "11 queries, 2 with few-shot examples, 0 cut to fit"


def test_c13_part_of_the_queries_may_have_no_examples(encoder: Encoder) -> None:
    config = showing(query_max_length=512)
    part = retrieving.render(encoder, config, tiny.queries()[:2], {})
    assert (part.carrying, len(part.texts)) == (0, 2)
    with pytest.raises(BadConfig, match="0 of 2 queries have one"):
        retrieving.need_examples(config, part)
    retrieving.need_examples(PLAIN, part)
    retrieving.need_examples(config, RenderedQueries([], [], 0, 0))


def test_c18_queries_cut_to_fit_are_counted(encoder: Encoder) -> None:
    config = PromptConfig(query="{question} {wrong}", query_max_length=30)
    rendered = render_queries(encoder, config, tiny.queries(), {})
    complete = render_queries(
        encoder, PromptConfig(query="{question} {wrong}", query_max_length=512), tiny.queries(), {}
    )
    longer = [len(ids) > 30 for ids in complete.tokens]
    assert rendered.cut == sum(longer) > 0
    assert [len(ids) <= 30 for ids in rendered.tokens] == [True] * 11
    for was_longer, ids, all_ids in zip(longer, rendered.tokens, complete.tokens, strict=True):
        assert was_longer or ids == all_ids


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("spare", [-150, -1, 0, 1])
def test_batch_rendering_equals_rendering_one_by_one(
    tmp_path: Path, family: str, spare: int
) -> None:
    """Length limits just below, at and above the length of a text, and far below it."""
    base = models.write(tmp_path, family, max_position_embeddings=4096)
    encoder = models.load(base, pooling="last" if family == "llama" else "mean")
    config = showing(query_max_length=4000)
    shown = chosen(config)
    lengths = sorted(map(len, render_queries(encoder, config, tiny.queries(), shown).tokens))
    config = config.model_copy(update={"query_max_length": lengths[len(lengths) // 2] + spare})
    rendered = retrieving.render(encoder, config, tiny.queries(), shown)
    slow = [
        prompts.query(config, query, shown.get(query.query_id, ()), count=encoder.count)
        for query in tiny.queries()
    ]
    assert rendered.texts == [item.text for item in slow]
    assert rendered.carrying == sum(item.examples > 0 for item in slow)
    assert rendered.cut == sum(item.cut for item in slow)
    for text, ids in zip(rendered.texts, rendered.tokens, strict=True):
        assert ids == encoder.tokenize([text], config.query_max_length)[0]
        assert len(ids) == encoder.count(text) <= config.query_max_length


def test_a_passage_is_cut_at_its_own_length(encoder: Encoder) -> None:
    ids = passages(encoder, PromptConfig(passage_max_length=10), tiny.corpus())
    assert {len(id_) for id_ in ids} == {10}
    assert len(passages(encoder, PLAIN, {Position(1): "Ab"})[0]) == 4  # BOS, two bytes, EOS


def test_c19_texts_and_tokens_have_separate_digests(encoder: Encoder) -> None:
    first = render_queries(encoder, PLAIN, tiny.queries(), {}).digests()
    assert first == render_queries(encoder, PLAIN, tiny.queries(), {}).digests()
    other = RenderedQueries([], [], 0, 0)
    assert first["texts"] != first["tokens"]
    assert first["texts"] != other.digests()["texts"]
    rendered = render_queries(encoder, PLAIN, tiny.queries(), {})
    tokens = [[*rendered.tokens[0], 3], *rendered.tokens[1:]]
    changed = RenderedQueries(rendered.texts, tokens, rendered.carrying, rendered.cut).digests()
    assert changed["texts"] == first["texts"]
    assert changed["tokens"] != first["tokens"]


def test_the_probe_is_measured_layer_by_layer(encoder: Encoder, tmp_path: Path) -> None:
    embedded = index(encoder, PLAIN, tiny.corpus())
    measured = probe_measurement.measure(encoder, PLAIN, tiny.queries(), embedded, {}, k=K)
    assert measured.layers["base"] == encoder.base.digest()
    assert measured.layers["adapter"] == ""
    assert measured.layers["precision"] == "float32/none"
    assert measured.layers["device"] == "cpu"
    second = probe_measurement.measure(encoder, PLAIN, tiny.queries(), embedded, {}, k=K)
    assert second.layers == measured.layers
    trained = models.load(encoder.base, token_budget=1024)
    models.attach(trained)
    moved = probe_measurement.measure(
        trained, PLAIN, tiny.queries(), index(trained, PLAIN, tiny.corpus()), {}, k=K
    )
    different = {name for name in measured.layers if moved.layers[name] != measured.layers[name]}
    assert different <= {"embeddings", "ranking"}
    assert "embeddings" in different


def test_c14_another_prompt_differs_first_in_the_layer_that_it_changes(encoder: Encoder) -> None:
    embedded = index(encoder, PLAIN, tiny.corpus())
    first = probe_measurement.measure(encoder, PLAIN, tiny.queries(), embedded, {}, k=K).layers
    longer = PromptConfig(query_max_length=300)  # changes no text that fits
    second = probe_measurement.measure(encoder, longer, tiny.queries(), embedded, {}, k=K).layers
    assert [name for name in first if first[name] != second[name]] == ["template"]
    config = showing(query_max_length=512)
    third = probe_measurement.measure(
        encoder, config, tiny.queries(), embedded, chosen(config), k=K
    ).layers
    different = [name for name in first if first[name] != third[name]]
    assert different[:4] == ["template", "examples", "texts", "tokens"]


def test_the_digest_of_examples_covers_the_policy_and_each_query_s_examples() -> None:
    config = showing(query_max_length=512)
    shown = chosen(config)
    first = probe_measurement.examples_digest(config, shown)
    assert probe_measurement.examples_digest(config, shown) == first
    query_id, *_ = shown
    assert probe_measurement.examples_digest(config, {**shown, query_id: ()}) != first
    assert (
        probe_measurement.examples_digest(showing(query_max_length=512, example_seed=1), shown)
        != first
    )
