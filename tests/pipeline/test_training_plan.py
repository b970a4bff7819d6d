"""What a training is to learn from, token by token, before its first step."""

import re
from dataclasses import replace
from typing import Any

import pytest
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench

from parity.competition import few_shot as shelf
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
LONGEST = 512  # no query of the bench is longer, two few-shot examples included


def shown(mode: str, **more: Any) -> dict[str, Any]:
    return {
        "examples": mode,
        "example_count": 2,
        "query_max_length": LONGEST,
        "format": "icl",
        **more,
    }


def written(run: Run, known: Dataset | None = None) -> tuple[TrainingPlan, list[str]]:
    return training_plan.build_training_plan(
        encoder_loading.encoder(run),
        run.config,
        known or dataset.load(run),
        negatives.read(dag.folder(run, "mine") / "negatives.jsonl"),
        "key",
    )


def text_of(encoder: Encoder, ids: list[int]) -> str:
    return str(encoder._tokenizer.decode(ids))


def test_each_epoch_asks_every_train_row_once(made: Bench) -> None:
    run = made.run()
    plan, lines = written(run)
    asked = sorted(query.query_id for query in dataset.load(run).train)
    assert len(plan.epochs) == run.config.training.epochs == 2
    for batches in plan.epochs:
        assert sorted(id_ for batch in batches for id_ in batch.query_ids) == asked
    assert plan.epochs[0] != plan.epochs[1]
    assert plan.key == "key"
    assert lines[0] == f"train: {len(asked)} queries, 0 with few-shot examples, 0 cut to fit"
    assert [line.split(":")[0] for line in lines[1:]] == ["epoch 1", "epoch 2", "epoch 1"]


def test_tokens_of_the_first_epoch_are_told_flat_and_packed(made: Bench) -> None:
    plan, lines = written(made.run())
    batches = [[*asked, *answers] for asked, answers in map(plan.tokens, plan.epochs[0])]
    flat = sum(len(ids) for batch in batches for ids in batch)
    heads = [
        {tuple(ids[:stop]) for ids in batch for stop in range(1, len(ids) + 1)} for batch in batches
    ]
    packed = sum(map(len, heads))  # a node is a distinct prefix; no batch here is cut
    assert packed < flat
    assert lines[-1] == (
        f"epoch 1: {flat:,} tokens flat, {packed:,} packed: shared {flat / packed:.2f} times"
    )


@pytest.mark.parametrize(("mode", "most"), [("fixed", 1500), ("batch", 1000)])
def test_no_batch_passes_the_tokens_that_a_step_may_have(
    bench: Bench, mode: str, most: int
) -> None:
    bench.write(prompt=shown(mode), training={"batch_size": 16, "batch_tokens": most})
    run = bench.make("prepare", "mine")
    encoder = encoder_loading.encoder(run)
    plan, _ = written(run)
    asked = sorted(query.query_id for query in dataset.load(run).train)
    sizes = []
    for batches in plan.epochs:
        assert sorted(id_ for batch in batches for id_ in batch.query_ids) == asked
        for batch in batches:
            sequences = [ids for side in plan.tokens(batch) for ids in side]
            packs = encoder.packs(sequences, run.config.training.token_budget)
            sizes.append(sum(map(len, packs)))
            assert sizes[-1] <= most or len(batch.query_ids) == 1
    assert max(sizes) > most / 2, "a case that tells nothing"
    assert len(plan.epochs[0]) > 2, "a case that tells nothing"


@pytest.mark.parametrize("mode", ["none", *MODES])
def test_c14_training_asks_in_the_words_of_the_one_prompt(bench: Bench, mode: str) -> None:
    asking = shown(mode, instruction="Find it.\nNow.") if mode != "none" else {}
    bench.write(prompt=asking)
    run = bench.make("prepare", "mine")
    known, config = dataset.load(run), run.config.prompt
    encoder = encoder_loading.encoder(run)
    plan, _ = written(run)
    by_id = {query.query_id: query for query in known.train}
    chosen = dataset.shown(known, config, known.train)
    for batch in plan.epochs[0]:
        queries, passages = plan.tokens(batch)
        asked = [by_id[id_] for id_ in batch.query_ids]
        if mode == "batch":
            shared = shelf.for_batch(asked, known.pool, count=2, seed=0)
            chosen = {one.query_id: shared for one in asked}
        for one, ids in zip(asked, queries, strict=True):
            expected = prompts.query(config, one, chosen[one.query_id], count=encoder.count)
            assert [ids] == encoder.tokenize([expected.text], config.query_max_length)
            assert expected.examples == (0 if mode == "none" else 2)
        for key, ids in zip(batch.passages, passages, strict=True):
            expected_text = prompts.passage(config, known.corpus[key])
            assert [ids] == encoder.tokenize([expected_text], config.passage_max_length)


def test_a_batch_shares_its_examples_and_so_its_prefix(bench: Bench) -> None:
    bench.write(prompt=shown("batch"))
    run = bench.make("prepare", "mine")
    encoder = encoder_loading.encoder(run)
    plan, _ = written(run)
    heads = []
    for batch in plan.epochs[0]:
        texts = [text_of(encoder, ids) for ids in plan.tokens(batch)[0]]
        parts = [re.split(r"(?=<instruct>)", text) for text in texts]
        assert {len(part) for part in parts} == {4}
        (head,) = {tuple(part[:3]) for part in parts}
        heads.append(head)
    assert len(set(heads)) == len(heads)


@pytest.mark.parametrize("mode", MODES)
def test_c13_how_many_queries_carry_examples_is_told(
    bench: Bench, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.write(prompt=shown(mode), training={"epochs": 1})
    bench.make("prepare")
    label = "train, first epoch" if mode == "batch" else "train"
    for stage, told in (
        ("mine", "train: 31 queries, 31 with few-shot examples, 0 cut to fit"),
        ("train", f"{label}: 31 queries, 31 with few-shot examples, 0 cut to fit"),
        ("eval", "valid: 21 queries, 21 with few-shot examples, 0 cut to fit"),
        ("predict", "test: 12 queries, 12 with few-shot examples, 0 cut to fit"),
    ):
        capsys.readouterr()
        run = bench.make(stage)
        assert told in capsys.readouterr().out.splitlines()
    evaluate.evaluate(run, "epoch-1")
    texts = files.read_jsonl(run.workspace.texts(0, "epoch-1"))
    assert {row["text"].count("<instruct>") for row in texts} == {3}


@pytest.mark.parametrize("mode", MODES)
def test_c13_examples_that_never_fit_stop_the_stage(bench: Bench, mode: str) -> None:
    bench.write(prompt=shown(mode, query_max_length=100))
    bench.make("prepare")
    told = rf"prompt\.examples = '{mode}', but none of 31 queries carries one: raise .* \(now 100\)"
    with pytest.raises(BadConfig, match=told):
        bench.make("mine")
    bench.write()
    bench.make("mine")
    bench.write(prompt=shown(mode, query_max_length=100))
    benches.rewrite_config(bench.run(), "mine")
    with pytest.raises(BadConfig, match=told):
        bench.make("train")


def test_c13_a_batch_that_carries_none_among_others_that_do_is_trained(bench: Bench) -> None:
    # Each batch is one question; some with their example are longer than that, some are not.
    bench.write(
        prompt=shown("batch", example_count=1, query_max_length=190),
        training={"group_by": "question", "batch_size": 1, "epochs": 1},
    )
    run = bench.make("prepare", "mine")
    encoder = encoder_loading.encoder(run)
    plan, lines = written(run)
    carrying = [
        sum(text_of(encoder, ids).count("<instruct>") > 1 for ids in plan.tokens(batch)[0])
        for batch in plan.epochs[0]
    ]
    assert 0 in carrying, "a case that tells nothing"
    assert max(carrying) > 0, "a case that tells nothing"
    assert f"31 queries, {sum(carrying)} with few-shot examples" in lines[0]
    bench.make("train")


@pytest.mark.parametrize("mode", MODES)
def test_b9_a_pool_that_holds_a_valid_question_is_refused_before_training(
    bench: Bench, mode: str
) -> None:
    bench.write(prompt=shown(mode))
    run = bench.make("prepare", "mine")
    known = dataset.load(run)
    leaked = known.valid[0]
    right = min(known.qrels[leaked.query_id])
    leaking = replace(known, pool=(*known.pool, Example(leaked, right, known.corpus[right])))
    with pytest.raises(Contaminated, match="examples outside the train side"):
        written(run, leaking)
