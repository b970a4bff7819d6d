"""Tests of the training plan: batches and token ids before the first step."""

import re
from dataclasses import replace
from typing import Any

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture

from parity.competition import few_shot
from parity.competition.few_shot import Example
from parity.pipeline import dag, dataset, encoder_loading, training_plan
from parity.pipeline.dataset import Dataset
from parity.pipeline.stage_cores import evaluate
from parity.retrieval import prompts
from parity.retrieval.encoder import Encoder
from parity.run import files
from parity.run.errors import BadConfig, Contaminated
from parity.run.experiment import Run
from parity.training import negatives
from parity.training.trainer import TrainingPlan

MODES = ("fixed", "batch", "question", "random")
LONGEST = 512  # at least the length of every query of the small run with two few-shot examples


def shown(mode: str, **values: Any) -> dict[str, Any]:
    return {
        "examples": mode,
        "example_count": 2,
        "query_max_length": LONGEST,
        "format": "icl",
        **values,
    }


def build_plan(run: Run, data: Dataset | None = None) -> tuple[TrainingPlan, list[str]]:
    return training_plan.build_training_plan(
        encoder_loading.load_encoder(run.config.encoder, run.workspace),
        run.config,
        data or dataset.load(run.config, run.workspace),
        negatives.read(
            dag.folder(run, "mine") / "negatives.jsonl",
            dataset.load(run.config, run.workspace).corpus,
        ),
        "key",
    )


def text_of(encoder: Encoder, ids: list[int]) -> str:
    return str(encoder._tokenizer.decode(ids))


def test_each_epoch_has_every_train_query_once(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    plan, lines = build_plan(run)
    query_ids = sorted(query.query_id for query in dataset.load(run.config, run.workspace).train)
    assert len(plan.epochs) == run.config.training.epochs == 2
    for batches in plan.epochs:
        assert sorted(id_ for batch in batches for id_ in batch.query_ids) == query_ids
    assert plan.epochs[0] != plan.epochs[1]
    assert plan.key == "key"
    assert lines[0] == f"train: {len(query_ids)} queries, 0 with few-shot examples, 0 cut to fit"
    assert [line.split(":")[0] for line in lines[1:]] == ["epoch 1", "epoch 2", "epoch 1"]


def test_tokens_of_the_first_epoch_are_reported_without_and_with_prefix_sharing(
    predicted_run: RunFixture,
) -> None:
    plan, lines = build_plan(predicted_run.open())
    batches = [[*queries, *passages] for queries, passages in map(plan.tokens, plan.epochs[0])]
    unshared = sum(len(ids) for batch in batches for ids in batch)
    heads = [
        {tuple(ids[:stop]) for ids in batch for stop in range(1, len(ids) + 1)} for batch in batches
    ]
    packed = sum(
        map(len, heads)
    )  # one packed token per distinct prefix; these batches have one pack
    assert packed < unshared
    assert lines[-1] == (
        f"epoch 1: {unshared:,} tokens without prefix sharing, {packed:,} with it "
        f"({unshared / packed:.2f} times fewer)"
    )


@pytest.mark.parametrize(("mode", "limit"), [("fixed", 1500), ("batch", 1000)])
def test_no_batch_exceeds_the_token_budget_of_a_step(
    small_run: RunFixture, mode: str, limit: int
) -> None:
    small_run.write_config(prompt=shown(mode), training={"batch_size": 16, "batch_tokens": limit})
    run = small_run.run_stages("prepare", "mine")
    encoder = encoder_loading.load_encoder(run.config.encoder, run.workspace)
    plan, _ = build_plan(run)
    query_ids = sorted(query.query_id for query in dataset.load(run.config, run.workspace).train)
    sizes = []
    for batches in plan.epochs:
        assert sorted(id_ for batch in batches for id_ in batch.query_ids) == query_ids
        for batch in batches:
            sequences = [ids for side in plan.tokens(batch) for ids in side]
            packs = encoder.packs(sequences, run.config.training.token_budget)
            sizes.append(sum(map(len, packs)))
            assert sizes[-1] <= limit or len(batch.query_ids) == 1
    assert max(sizes) > limit / 2, "no batch is near the budget"
    assert len(plan.epochs[0]) > 2, "the epoch has too few batches"


@pytest.mark.parametrize("mode", ["none", *MODES])
def test_c14_training_uses_the_texts_of_the_prompts_module(
    small_run: RunFixture, mode: str
) -> None:
    prompt_config = shown(mode, instruction="Find it.\nNow.") if mode != "none" else {}
    small_run.write_config(prompt=prompt_config)
    run = small_run.run_stages("prepare", "mine")
    data, config = dataset.load(run.config, run.workspace), run.config.prompt
    encoder = encoder_loading.load_encoder(run.config.encoder, run.workspace)
    plan, _ = build_plan(run)
    by_id = {query.query_id: query for query in data.train}
    chosen = dataset.shown(data, config, data.train)
    for batch in plan.epochs[0]:
        queries, passages = plan.tokens(batch)
        targets = [by_id[id_] for id_ in batch.query_ids]
        if mode == "batch":
            shared = few_shot.for_batch(targets, data.pool, count=2, seed=0)
            chosen = {target.query_id: shared for target in targets}
        for target, ids in zip(targets, queries, strict=True):
            expected = prompts.query(config, target, chosen[target.query_id], count=encoder.count)
            assert [ids] == encoder.tokenize([expected.text], config.query_max_length)
            assert expected.examples == (0 if mode == "none" else 2)
        for key, ids in zip(batch.passages, passages, strict=True):
            expected_text = prompts.passage(config, data.corpus[key])
            assert [ids] == encoder.tokenize([expected_text], config.passage_max_length)


def test_queries_of_a_batch_share_their_examples_and_so_their_prefix(small_run: RunFixture) -> None:
    small_run.write_config(prompt=shown("batch"))
    run = small_run.run_stages("prepare", "mine")
    encoder = encoder_loading.load_encoder(run.config.encoder, run.workspace)
    plan, _ = build_plan(run)
    heads = []
    for batch in plan.epochs[0]:
        texts = [text_of(encoder, ids) for ids in plan.tokens(batch)[0]]
        parts = [re.split(r"(?=<instruct>)", text) for text in texts]
        assert {len(part) for part in parts} == {4}
        (head,) = {tuple(part[:3]) for part in parts}
        heads.append(head)
    assert len(set(heads)) == len(heads)


@pytest.mark.parametrize("mode", MODES)
def test_c13_the_number_of_queries_with_examples_is_reported(
    small_run: RunFixture, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small_run.write_config(prompt=shown(mode), training={"epochs": 1})
    small_run.run_stages("prepare")
    label = "train, first epoch" if mode == "batch" else "train"
    for stage, line in (
        ("mine", "train: 31 queries, 31 with few-shot examples, 0 cut to fit"),
        ("train", f"{label}: 31 queries, 31 with few-shot examples, 0 cut to fit"),
        ("eval", "valid: 21 queries, 21 with few-shot examples, 0 cut to fit"),
        ("predict", "test: 12 queries, 12 with few-shot examples, 0 cut to fit"),
    ):
        capsys.readouterr()
        run = small_run.run_stages(stage)
        assert line in capsys.readouterr().out.splitlines()
    evaluate.evaluate(run, "epoch-1")
    texts = files.read_jsonl(run.workspace.texts(0, "epoch-1"))
    assert {row["text"].count("<instruct>") for row in texts} == {3}


@pytest.mark.parametrize("mode", MODES)
def test_c13_examples_that_never_fit_stop_the_stage(small_run: RunFixture, mode: str) -> None:
    small_run.write_config(prompt=shown(mode, query_max_length=100))
    small_run.run_stages("prepare")
    message = rf"prompt\.examples = '{mode}', but 0 of 31 queries have one\. Raise .* \(now 100\)"
    with pytest.raises(BadConfig, match=message):
        small_run.run_stages("mine")
    small_run.write_config()
    small_run.run_stages("mine")
    small_run.write_config(prompt=shown(mode, query_max_length=100))
    run_fixture.rewrite_config(small_run.open(), "mine")
    with pytest.raises(BadConfig, match=message):
        small_run.run_stages("train")


def test_c13_a_batch_without_examples_is_trained_if_other_batches_have_them(
    small_run: RunFixture,
) -> None:
    # Each batch is one question. Some questions are too long with their example, others are not.
    small_run.write_config(
        prompt=shown("batch", example_count=1, query_max_length=190),
        training={"group_by": "question", "batch_size": 1, "epochs": 1},
    )
    run = small_run.run_stages("prepare", "mine")
    encoder = encoder_loading.load_encoder(run.config.encoder, run.workspace)
    plan, lines = build_plan(run)
    carrying = [
        sum(text_of(encoder, ids).count("<instruct>") > 1 for ids in plan.tokens(batch)[0])
        for batch in plan.epochs[0]
    ]
    assert 0 in carrying, "every batch has examples"
    assert max(carrying) > 0, "no batch has examples"
    assert f"31 queries, {sum(carrying)} with few-shot examples" in lines[0]
    small_run.run_stages("train")


@pytest.mark.parametrize("mode", MODES)
def test_b9_a_pool_that_holds_a_valid_question_is_refused_before_training(
    small_run: RunFixture, mode: str
) -> None:
    small_run.write_config(prompt=shown(mode))
    run = small_run.run_stages("prepare", "mine")
    data = dataset.load(run.config, run.workspace)
    leaked = data.valid[0]
    right = min(data.qrels[leaked.query_id])
    leaking = replace(data, pool=(*data.pool, Example(leaked, right, data.corpus[right])))
    with pytest.raises(Contaminated, match="examples outside the train side"):
        build_plan(run, leaking)
