"""Tests of FlagEmbedding's file: read by FlagEmbedding's data sets and by `import_rows`."""

import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from FlagEmbedding.abc.finetune.embedder import AbsEmbedderDataArguments, AbsEmbedderTrainDataset
from FlagEmbedding.finetune.embedder.decoder_only.icl import DecoderOnlyEmbedderICLDataArguments
from FlagEmbedding.finetune.embedder.decoder_only.icl.dataset import (
    DecoderOnlyEmbedderICLSameDatasetTrainDataset,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from parity.competition.query import Position, Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.run import files
from parity.run.config.mining import MiningConfig
from parity.run.errors import BadData, Mismatch
from parity.training.flagembedding import TrainingRow, export_rows, import_rows
from parity.training.negatives import Negatives, QueryNegatives, mine

INSTRUCTION = 'Which misconception makes "7" of it?\nOne sentence.'
FORMAT = "<instruct>{}\n<query>{}"

World = tuple[Ranking, Qrels, dict[QueryId, str], dict[Position, str]]


def world(seed: int = 0, *, queries: int = 9, size: int = 12) -> World:
    """Return data with newlines, quotes and LaTeX; two queries and two passages share a text."""
    draws = np.random.default_rng(seed)
    passages = {Position(key): f'Rule {key}: "\\( {key} \\)"\nØ × 2' for key in range(size)}
    passages[Position(size - 1)] = passages[Position(size - 2)]
    rows = [QueryId(f"{number}_A") for number in range(queries)]
    texts = {row: f'Work out \\(\\frac{{1}}{{{row}}}\\)\n"{row}"' for row in rows}
    texts[rows[1]] = texts[rows[0]]
    scores = np.sort(draws.uniform(-1, 1, (queries, size)).astype(np.float32))[:, ::-1]
    ids = np.array([draws.permutation(size) for _ in rows])
    qrels = {row: frozenset({Position(index % size)}) for index, row in enumerate(rows)}
    qrels[rows[2]] |= {Position(7)}
    return Ranking(tuple(rows), ids, np.ascontiguousarray(scores)), qrels, texts, passages


def mined(data: World, **keys: object) -> Negatives:
    ranking, qrels, _, passages = data
    config = MiningConfig.model_validate({"scope": "corpus", "count": 5, **keys})
    return mine(ranking, qrels, passages, config, positives=frozenset(), miner="m")


def exported(
    data: World, negatives: Negatives, ranking: Ranking | None = None
) -> list[TrainingRow]:
    _, qrels, texts, passages = data
    return export_rows(
        negatives,
        qrels,
        texts=texts,
        passages=passages,
        instruction=INSTRUCTION,
        ranking=ranking,
    )


def imported(data: World, rows: list[TrainingRow]) -> tuple[Negatives, int]:
    _, qrels, texts, passages = data
    result = import_rows(
        rows, qrels, texts=texts, passages=passages, instruction=INSTRUCTION, miner="m"
    )
    return result.negatives, result.dropped


def tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of single characters, which decodes to the original text."""
    letters = sorted(set("".join(texts)))
    vocabulary = {letter: index for index, letter in enumerate(["<s>", "</s>", "<unk>", *letters])}
    character_tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    character_tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    character_tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=character_tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def icl_dataset(path: Path, **keys: Any) -> Any:
    rows = cast("list[TrainingRow]", files.read_jsonl(path))
    texts = [text for row in rows for text in (row["query"], *row["pos"], *row["neg"])]
    args = DecoderOnlyEmbedderICLDataArguments(
        train_data=[str(path)],
        cache_path=str(path.parent / "cache"),
        query_instruction_for_retrieval="another instruction, which each row's prompt replaces",
        query_instruction_format=FORMAT,
        query_max_len=2048,
        train_group_size=4,
        retrieval_use_examples=False,
        icl_suffix_str="\n<response>",
        **keys,
    )
    return DecoderOnlyEmbedderICLSameDatasetTrainDataset(
        args,
        default_batch_size=4,
        seed=0,
        tokenizer=tokenizer([*texts, INSTRUCTION, FORMAT, "\n<response>"]),
    )


def test_flagembeddings_icl_data_set_reads_the_exported_rows(tmp_path: Path) -> None:
    data = world()
    rows = exported(data, mined(data))
    files.write_jsonl(tmp_path / "train.jsonl", rows)
    random.seed(0)
    loaded = icl_dataset(tmp_path / "train.jsonl")
    assert len(loaded) == 2  # nine rows in batches of four: the last batch is dropped
    row_of = {FORMAT.format(row["prompt"], row["query"]) + "\n<response>": row for row in rows}
    for _ in range(2):
        queries, passages, scores, no_in_batch = loaded[0]
        assert (len(queries), len(passages), scores, no_in_batch) == (4, 16, None, False)
        for index, query in enumerate(queries):
            positive, *negatives = passages[4 * index : 4 * index + 4]
            matching = [row for row in rows if row["query"] == row_of[query]["query"]]
            assert any(
                positive in row["pos"] and set(negatives) <= set(row["neg"]) for row in matching
            )


def test_scores_reach_flagembeddings_distillation(tmp_path: Path) -> None:
    data = world()
    ranking = data[0]
    rows = exported(data, mined(data, strategy="mix"), ranking)
    files.write_jsonl(tmp_path / "train.jsonl", rows)
    random.seed(0)
    loaded = icl_dataset(tmp_path / "train.jsonl", knowledge_distillation=True)
    _, passages, scores, _ = loaded[0]
    expected = {(text, score) for row in rows for text, score in _scored(row)}
    assert len(scores) == len(passages) == 16
    assert set(zip(passages, scores, strict=True)) <= expected


def _scored(row: TrainingRow) -> list[tuple[str, float]]:
    texts, scores = row["pos"] + row["neg"], row["pos_scores"] + row["neg_scores"]
    return list(zip(texts, scores, strict=True))


def test_flagembeddings_plain_data_set_reads_the_exported_rows(tmp_path: Path) -> None:
    data = world()
    rows = exported(data, mined(data))
    files.write_jsonl(tmp_path / "train.jsonl", rows)
    args = AbsEmbedderDataArguments(
        train_data=[str(tmp_path / "train.jsonl")],
        cache_path=str(tmp_path / "cache"),
        query_instruction_for_retrieval="another",
        query_instruction_format=FORMAT,
        train_group_size=8,  # more than the row has, so the list is repeated
    )
    loaded = AbsEmbedderTrainDataset(args, None)
    assert len(loaded) == len(rows)
    for index, row in enumerate(rows):
        query, passages, _ = loaded[index]
        assert query == FORMAT.format(INSTRUCTION, row["query"])
        assert passages[0] in row["pos"]
        assert set(passages[1:]) <= set(row["neg"])
        assert len(passages) == 8


def test_scores_are_written_for_all_passages_or_not_at_all() -> None:
    data = world()
    ranking, negatives = data[0], mined(data, strategy="mix")
    for row in exported(data, negatives) + exported(data, negatives, ranking.top(8)):
        assert row.keys() == {"query", "pos", "neg", "prompt"}
    for row, source in zip(exported(data, negatives, ranking), negatives.rows, strict=True):
        scores = [score for score in source.scores if score is not None]
        assert row["neg_scores"][: len(scores)] == scores
        assert len(row["pos_scores"]) == len(row["pos"])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    strategy=st.sampled_from(["range", "percpos", "random", "mix"]),
    count=st.integers(1, 12),
)
def test_exported_rows_are_imported(seed: int, strategy: str, count: int) -> None:
    data = world(seed)
    negatives = mined(data, strategy=strategy, count=count)
    result, dropped = imported(data, exported(data, negatives))
    twin, last = Position(10), Position(11)  # equal texts: 11 is imported as 10
    for row, source in zip(result.rows, negatives.rows, strict=True):
        expected = dict.fromkeys(twin if key == last else key for key in source.positions)
        assert (row.query_id, row.positions) == (source.query_id, tuple(expected))
        assert set(row.ranks) == {0}
    assert dropped == sum({twin, last} <= set(row.positions) for row in negatives.rows)
    assert (result.strategy, result.miner, result.config) == ("imported", "m", None)


def test_scores_are_imported_with_their_negatives() -> None:
    data = world()
    ranking, negatives = data[0], mined(data, strategy="percpos", count=3)
    result, _ = imported(data, exported(data, negatives, ranking))
    for row, source in zip(result.rows, negatives.rows, strict=True):
        expected: dict[int, float | None] = {}
        for key, score in zip(source.positions, source.scores, strict=True):
            column = ranking.positions[ranking.query_ids.index(row.query_id)].tolist().index(key)
            ranked_score = float(ranking.scores[ranking.query_ids.index(row.query_id), column])
            assert score in (None, ranked_score)
            expected.setdefault(min(key, 10), ranked_score)  # 10 and 11 share a text
        assert dict(zip(row.positions, row.scores, strict=True)) == expected


def test_teacher_scores_are_imported_and_exported_unchanged() -> None:
    data = world()
    rows = exported(data, mined(data, count=3), data[0])
    result, _ = imported(data, rows)
    for row, source in zip(rows, result.rows, strict=True):
        text_of = data[3]
        score_of = dict(zip(row["pos"], row["pos_scores"], strict=True))
        for text, score in zip(row["neg"], row["neg_scores"], strict=True):
            score_of.setdefault(text, score)
        assert {text_of[key] for key in source.scored()} == set(score_of)
        for key, score in source.scored().items():
            assert score == score_of[text_of[key]]
        assert source.teacher == source.scores
        assert {key for key, _ in source.positives} == data[1][source.query_id]
    exported_rows = exported(data, result)  # no ranking: the teacher's scores
    assert all({"pos_scores", "neg_scores"} <= row.keys() for row in exported_rows)
    assert imported(data, exported_rows) == (result, 0)


@pytest.mark.parametrize("column", ["pos_scores", "neg_scores"])
def test_teacher_scores_need_both_columns(column: str) -> None:
    data = world()
    rows = exported(data, mined(data, count=3), data[0])
    for row in rows:
        del row[column]  # type: ignore[misc]
    result, _ = imported(data, rows)
    assert not any(row.teacher or row.positives for row in result.rows)
    assert not any("pos_scores" in row for row in exported(data, result))


def test_queries_with_equal_texts_are_distinguished_by_their_positives() -> None:
    data = world()
    rows = exported(data, mined(data))
    result, _ = imported(data, [rows[1], rows[0]])
    assert [row.query_id for row in result.rows] == ["1_A", "0_A"]


def test_imported_negatives_that_repeat_or_have_the_text_of_a_positive_are_dropped() -> None:
    ranking, qrels, texts, passages = data = world()
    rows = exported(data, mined(data, count=3))
    before, repeated = imported(data, rows[:1])
    spaced = rows[0]["pos"][0] + " "  # another text for FlagEmbedding, an equal sentence for mining
    rows[0]["neg"] = [spaced, *rows[0]["neg"], rows[0]["neg"][0]]
    wider = {**passages, Position(50): spaced}
    result, dropped = imported((ranking, qrels, texts, wider), rows[:1])
    assert result == before
    assert dropped == repeated + 2


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"query": "What else?"}, BadData, "row 2: the query is not in this run"),
        ({"neg": ["Rule 99"]}, BadData, "row 2: passage 1 is not in the corpus"),
        ({"pos": []}, Mismatch, "row 2: the positives are not labels of query 8_A"),
        ({"prompt": "Other"}, Mismatch, "row 2: the prompt is not the run's prompt.instruction"),
        ({"neg_scores": [1.0]}, BadData, "row 2: 1 neg_scores for 5 negatives"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_number(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    data = world()
    rows = exported(data, mined(data))[-2:]
    bad = cast("TrainingRow", {**rows[1], **change})
    with pytest.raises(error, match=message.replace(".", r"\.")):
        imported(data, [rows[0], bad])


def test_a_repeated_row_and_a_row_without_a_key_are_refused() -> None:
    data = world()
    rows = exported(data, mined(data))
    with pytest.raises(
        BadData, match="row 2: the query is not in this run, or it occurs too often"
    ):
        imported(data, [rows[5], rows[5]])
    with pytest.raises(BadData, match="row 1: key 'neg' is missing"):
        imported(data, [cast("TrainingRow", {"query": "q", "pos": []})])


def test_a_query_without_negatives_is_not_exported() -> None:
    data = world()
    empty = Negatives((QueryNegatives(QueryId("0_A"), (), (), ()),), "m", "random")
    with pytest.raises(BadData, match="query 0_A has no negatives"):
        exported(data, empty)
