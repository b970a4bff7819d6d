"""FlagEmbedding's file: read by FlagEmbedding's own data sets, and read back by us."""

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

from parity.competition.query import MisconceptionId, Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.run import files
from parity.run.config.run_file import MiningConfig
from parity.run.errors import BadData, Mismatch
from parity.training.flagembedding import TrainingRow, export_rows, import_rows
from parity.training.negatives import Negatives, QueryNegatives, mine

INSTRUCTION = 'Which misconception makes "7" of it?\nOne sentence.'
FORMAT = "<instruct>{}\n<query>{}"

World = tuple[Ranking, Qrels, dict[QueryId, str], dict[MisconceptionId, str]]


def world(seed: int = 0, *, queries: int = 9, size: int = 12) -> World:
    """Texts with newlines, quotes and LaTeX; two queries share one, so do two passages."""
    draws = np.random.default_rng(seed)
    passages = {MisconceptionId(key): f'Rule {key}: "\\( {key} \\)"\nØ × 2' for key in range(size)}
    passages[MisconceptionId(size - 1)] = passages[MisconceptionId(size - 2)]
    rows = [QueryId(f"{number}_A") for number in range(queries)]
    texts = {row: f'Work out \\(\\frac{{1}}{{{row}}}\\)\n"{row}"' for row in rows}
    texts[rows[1]] = texts[rows[0]]
    scores = np.sort(draws.uniform(-1, 1, (queries, size)).astype(np.float32))[:, ::-1]
    ids = np.array([draws.permutation(size) for _ in rows])
    qrels = {row: frozenset({MisconceptionId(place % size)}) for place, row in enumerate(rows)}
    qrels[rows[2]] |= {MisconceptionId(7)}
    return Ranking(tuple(rows), ids, np.ascontiguousarray(scores)), qrels, texts, passages


def mined(given_: World, **keys: object) -> Negatives:
    ranking, qrels, _, passages = given_
    config = MiningConfig.model_validate({"scope": "corpus", "count": 5, **keys})
    return mine(ranking, qrels, passages, config, positives=frozenset(), miner="m")


def exported(
    given_: World, negatives: Negatives, ranking: Ranking | None = None
) -> list[TrainingRow]:
    _, qrels, texts, passages = given_
    return export_rows(
        negatives,
        qrels,
        texts=texts,
        passages=passages,
        instruction=INSTRUCTION,
        ranking=ranking,
    )


def imported(given_: World, rows: list[TrainingRow]) -> tuple[Negatives, int]:
    _, qrels, texts, passages = given_
    found = import_rows(
        rows, qrels, texts=texts, passages=passages, instruction=INSTRUCTION, miner="m"
    )
    return found.negatives, found.dropped


def tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of single characters, which decodes to what it was given."""
    letters = sorted(set("".join(texts)))
    vocabulary = {letter: place for place, letter in enumerate(["<s>", "</s>", "<unk>", *letters])}
    bare = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    bare.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=bare,
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


def test_flagembeddings_icl_data_set_trains_on_what_was_exported(tmp_path: Path) -> None:
    given_ = world()
    rows = exported(given_, mined(given_))
    files.write_jsonl(tmp_path / "train.jsonl", rows)
    random.seed(0)
    data = icl_dataset(tmp_path / "train.jsonl")
    assert len(data) == 2  # nine rows, batches of four: the ragged one is dropped
    known = {FORMAT.format(row["prompt"], row["query"]) + "\n<response>": row for row in rows}
    for _ in range(2):
        queries, passages, scores, alone = data[0]
        assert (len(queries), len(passages), scores, alone) == (4, 16, None, False)
        for place, query in enumerate(queries):
            positive, *negatives = passages[4 * place : 4 * place + 4]
            same = [row for row in rows if row["query"] == known[query]["query"]]
            assert any(positive in row["pos"] and set(negatives) <= set(row["neg"]) for row in same)


def test_scores_reach_flagembeddings_distillation(tmp_path: Path) -> None:
    given_ = world()
    ranking = given_[0]
    rows = exported(given_, mined(given_, strategy="mix"), ranking)
    files.write_jsonl(tmp_path / "train.jsonl", rows)
    random.seed(0)
    data = icl_dataset(tmp_path / "train.jsonl", knowledge_distillation=True)
    _, passages, scores, _ = data[0]
    told = {(text, score) for row in rows for text, score in _scored(row)}
    assert len(scores) == len(passages) == 16
    assert set(zip(passages, scores, strict=True)) <= told


def _scored(row: TrainingRow) -> list[tuple[str, float]]:
    texts, scores = row["pos"] + row["neg"], row["pos_scores"] + row["neg_scores"]
    return list(zip(texts, scores, strict=True))


def test_flagembeddings_plain_data_set_reads_it_too(tmp_path: Path) -> None:
    given_ = world()
    rows = exported(given_, mined(given_))
    files.write_jsonl(tmp_path / "train.jsonl", rows)
    args = AbsEmbedderDataArguments(
        train_data=[str(tmp_path / "train.jsonl")],
        cache_path=str(tmp_path / "cache"),
        query_instruction_for_retrieval="another",
        query_instruction_format=FORMAT,
        train_group_size=8,  # more than there are, so the list is repeated
    )
    data = AbsEmbedderTrainDataset(args, None)
    assert len(data) == len(rows)
    for place, row in enumerate(rows):
        query, passages, _ = data[place]
        assert query == FORMAT.format(INSTRUCTION, row["query"])
        assert passages[0] in row["pos"]
        assert set(passages[1:]) <= set(row["neg"])
        assert len(passages) == 8


def test_scores_are_written_for_every_passage_or_for_none() -> None:
    given_ = world()
    ranking, negatives = given_[0], mined(given_, strategy="mix")
    for row in exported(given_, negatives) + exported(given_, negatives, ranking.top(8)):
        assert row.keys() == {"query", "pos", "neg", "prompt"}
    for row, source in zip(exported(given_, negatives, ranking), negatives.rows, strict=True):
        known = [score for score in source.scores if score is not None]
        assert row["neg_scores"][: len(known)] == known
        assert len(row["pos_scores"]) == len(row["pos"])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    strategy=st.sampled_from(["range", "percpos", "random", "mix"]),
    count=st.integers(1, 12),
)
def test_what_was_exported_is_imported(seed: int, strategy: str, count: int) -> None:
    given_ = world(seed)
    negatives = mined(given_, strategy=strategy, count=count)
    found, dropped = imported(given_, exported(given_, negatives))
    twin, last = MisconceptionId(10), MisconceptionId(11)  # one sentence: 11 comes back as 10
    for row, source in zip(found.rows, negatives.rows, strict=True):
        expected = dict.fromkeys(twin if key == last else key for key in source.ids)
        assert (row.query_id, row.ids) == (source.query_id, tuple(expected))
        assert set(row.ranks) == {0}
    assert dropped == sum({twin, last} <= set(row.ids) for row in negatives.rows)
    assert (found.strategy, found.miner, found.config) == ("imported", "m", None)


def test_scores_come_back_beside_their_negatives() -> None:
    given_ = world()
    ranking, negatives = given_[0], mined(given_, strategy="percpos", count=3)
    found, _ = imported(given_, exported(given_, negatives, ranking))
    for row, source in zip(found.rows, negatives.rows, strict=True):
        first: dict[int, float | None] = {}
        for key, score in zip(source.ids, source.scores, strict=True):
            known = ranking.ids[ranking.query_ids.index(row.query_id)].tolist().index(key)
            place = float(ranking.scores[ranking.query_ids.index(row.query_id), known])
            assert score in (None, place)
            first.setdefault(min(key, 10), place)  # 10 and 11 share a sentence
        assert dict(zip(row.ids, row.scores, strict=True)) == first


def test_a_teacher_s_scores_come_back_and_go_out_again() -> None:
    given_ = world()
    rows = exported(given_, mined(given_, count=3), given_[0])
    found, _ = imported(given_, rows)
    for row, source in zip(rows, found.rows, strict=True):
        text_of = given_[3]
        said = dict(zip(row["pos"], row["pos_scores"], strict=True))
        for text, score in zip(row["neg"], row["neg_scores"], strict=True):
            said.setdefault(text, score)
        assert {text_of[key] for key in source.scored()} == set(said)
        for key, score in source.scored().items():
            assert score == said[text_of[key]]
        assert source.teacher == source.scores
        assert {key for key, _ in source.positives} == given_[1][source.query_id]
    again = exported(given_, found)  # no ranking: what the teacher said
    assert all({"pos_scores", "neg_scores"} <= row.keys() for row in again)
    assert imported(given_, again) == (found, 0)


@pytest.mark.parametrize("column", ["pos_scores", "neg_scores"])
def test_a_teacher_scores_both_sides_or_is_none(column: str) -> None:
    given_ = world()
    rows = exported(given_, mined(given_, count=3), given_[0])
    for row in rows:
        del row[column]  # type: ignore[misc]
    found, _ = imported(given_, rows)
    assert not any(row.teacher or row.positives for row in found.rows)
    assert not any("pos_scores" in row for row in exported(given_, found))


def test_queries_of_one_text_are_told_apart_by_their_positives() -> None:
    given_ = world()
    rows = exported(given_, mined(given_))
    found, _ = imported(given_, [rows[1], rows[0]])
    assert [row.query_id for row in found.rows] == ["1_A", "0_A"]


def test_foreign_negatives_that_say_what_a_right_one_says_or_repeat_are_dropped() -> None:
    ranking, qrels, texts, passages = given_ = world()
    rows = exported(given_, mined(given_, count=3))
    before, repeated = imported(given_, rows[:1])
    spaced = rows[0]["pos"][0] + " "  # another text there, the same sentence here
    rows[0]["neg"] = [spaced, *rows[0]["neg"], rows[0]["neg"][0]]
    wider = {**passages, MisconceptionId(50): spaced}
    found, dropped = imported((ranking, qrels, texts, wider), rows[:1])
    assert found == before
    assert dropped == repeated + 2


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"query": "What else?"}, BadData, "row 2: its query is none of this run's"),
        ({"neg": ["Rule 99"]}, BadData, "row 2: passage 1 is no passage of this corpus"),
        ({"pos": []}, Mismatch, "row 2: its positives are not the labels of query 8_A"),
        ({"prompt": "Other"}, Mismatch, "row 2: its prompt is not the run's prompt.instruction"),
        ({"neg_scores": [1.0]}, BadData, "row 2: 1 neg_scores for 5 negatives"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_number(
    change: dict[str, Any], error: type[Exception], told: str
) -> None:
    given_ = world()
    rows = exported(given_, mined(given_))[-2:]
    bad = cast("TrainingRow", {**rows[1], **change})
    with pytest.raises(error, match=told.replace(".", r"\.")):
        imported(given_, [rows[0], bad])


def test_a_row_that_comes_twice_or_lacks_a_key_is_refused() -> None:
    given_ = world()
    rows = exported(given_, mined(given_))
    with pytest.raises(BadData, match="row 2: its query is none of this run's, or comes once too"):
        imported(given_, [rows[5], rows[5]])
    with pytest.raises(BadData, match="row 1: no 'neg'"):
        imported(given_, [cast("TrainingRow", {"query": "q", "pos": []})])


def test_a_query_without_negatives_is_not_exported() -> None:
    given_ = world()
    none = Negatives((QueryNegatives(QueryId("0_A"), (), (), ()),), "m", "random")
    with pytest.raises(BadData, match="query 0_A has no negative"):
        exported(given_, none)
