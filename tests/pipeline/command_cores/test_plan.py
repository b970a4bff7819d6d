"""The plan of a run: its own texts are counted as the encoder packs them, and nothing is loaded."""

from pathlib import Path
from typing import Any

import pytest
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench

from parity.deploy.planning import kernel_plan
from parity.deploy.planning.kernel_plan import KernelJob
from parity.deploy.planning.plan_result import Plan
from parity.pipeline import dag, dataset, encoder_loading
from parity.pipeline.command_cores import plan
from parity.retrieval.engine import trie
from parity.retrieval.retrieve import passages, render_queries
from parity.run import manifest as manifests
from parity.run.errors import BadConfig, Mismatch, StaleInput
from parity.run.experiment import Run


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[KernelJob]:
    """Return what is planned, as it comes."""
    seen: list[KernelJob] = []
    make = kernel_plan.make

    def noted(job: KernelJob) -> Plan:
        seen.append(job)
        return make(job)

    monkeypatch.setattr(kernel_plan, "make", noted)
    return seen


def note_speed(run: Run, stage: str, **changes: Any) -> None:
    """Let a finished stage say how fast it embedded."""
    speed = {
        "tokens": 50_000,
        "packs": 100,
        "seconds": 25.0,
        "processes": 1,
        "precision": "float16/none",
        "gpu": "Tesla T4, 15360 MiB",
    }
    place = dag.folder(run, stage)
    found = manifests.read(place)
    assert found is not None
    found.facts["speed"] = {**speed, **changes}
    manifests.write(place, found, list(found.outputs))


def test_tokens_are_those_that_the_encoder_packs(bench: Bench, jobs: list[KernelJob]) -> None:
    run = bench.make("prepare")
    found = plan.planned(run)
    encoder, known, prompt = encoder_loading.encoder(run), dataset.load(run), run.config.prompt
    rows = [*known.test, *known.queries]
    asked = render_queries(encoder, prompt, rows, dataset.shown(known, prompt, rows))
    probe = render_queries(encoder, prompt, known.probe, dataset.shown(known, prompt, known.probe))
    nodes = [
        sum(map(len, trie.pack(sequences, encoder.config.token_budget)))
        for sequences in (asked.tokens, passages(encoder, prompt, known.corpus), probe.tokens)
    ]
    (counted,) = (job.counted for job in jobs)
    assert counted.whole == (len(rows), nodes[0])
    assert counted.beside == nodes[1] + nodes[2]
    assert counted.packs == len(trie.pack(asked.tokens, encoder.config.token_budget))
    assert counted.longest == max(map(len, asked.tokens))
    assert 0 < counted.half[0] < len(rows)
    assert 0 < counted.half[1] < nodes[0]
    assert found.tokens.expected > nodes[0] * 16_000 / len(rows) / 2


def test_so_many_rows_as_there_are_need_no_guess(bench: Bench, jobs: list[KernelJob]) -> None:
    run = bench.make("prepare")
    known = dataset.load(run)
    rows = len(known.test) + len(known.queries)
    found = plan.planned(run, "", rows)
    assert found.tokens.expected == jobs[0].counted.whole[1] + jobs[0].counted.beside


def test_the_sample_has_whole_questions_in_an_order_of_its_own(bench: Bench) -> None:
    known = dataset.load(bench.make("prepare"))
    everything = [*known.test, *known.queries]
    sample = plan._sample(everything, 10)
    assert 10 <= len(sample) <= 12
    taken = {query.question_id for query in sample}
    assert len(sample) == sum(query.question_id in taken for query in everything)
    assert sample == plan._sample(everything[::-1], 10)
    assert sorted(taken) != [query.question_id for query in everything][: len(taken)]


def test_a_fitting_run_is_printed_and_told(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bench.make("prepare")
    capsys.readouterr()
    told = plan.plan(run)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("small, round 0: 16,000 queries on t4x2 (2 × T4, queries), fp32")
    assert text.endswith("fits: yes\n")
    assert told["fits"] == "yes"
    assert plan.refusal(run) is None


def test_device_and_queries_come_from_the_run_unless_they_are_named(
    bench: Bench, jobs: list[KernelJob]
) -> None:
    bench.make("prepare")
    run = bench.run("shipping.device=l4x1", "shipping.queries=900", "shipping.hours=2.5")
    plan.planned(run)
    plan.planned(run, "cpu", 50)
    found = [(job.device.name, job.queries, job.hours) for job in jobs]
    assert found == [("l4x1", 900, 2.5), ("cpu", 50, 2.5)]


def test_a_run_over_the_limit_is_printed_then_refused(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.make("prepare")
    run = bench.run("shipping.hours=0.001")
    with pytest.raises(Mismatch, match=r"time is at least \d+ s of 4 s; it may fit with"):
        plan.plan(run)
    assert capsys.readouterr().out.endswith("fits: no\n")
    refused = plan.refusal(run)
    assert isinstance(refused, Mismatch)
    assert "invoke push --run small.toml --set=shipping.hours=0.001 --accept-risk" in str(refused)


def test_fewer_examples_are_named_where_they_would_do(bench: Bench) -> None:
    bench.write("shown", prompt={"examples": "random", "example_count": 3, "query_max_length": 400})
    run = bench.make("prepare", name="shown")
    less = run.config.prompt.model_copy(update={"examples": "none", "example_count": 0})
    with_, without = (
        plan.planned(one, "cpu", 2_000_000).parts["encode"].lower / 3600
        for one in (
            run,
            Run(run.file, run.config.model_copy(update={"prompt": less}), run.workspace),
        )
    )
    assert without < with_
    sets = (f"shipping.hours={(with_ + without) / 2:.3f}", "shipping.device=cpu")
    tight = bench.run(*sets, "shipping.queries=2000000", name="shown")
    found = plan.planned(tight)
    assert found.fits == "no"
    assert found.mends[-1].startswith("--set=prompt.examples=none")


def test_an_adapter_is_counted_or_where_there_is_none_yet_foreseen(
    made: Bench, jobs: list[KernelJob]
) -> None:
    run = made.run()
    plan.planned(run)
    adapter = run.workspace.adapter(0)
    adapter.rename(adapter.with_name("elsewhere"))
    plan.planned(run)
    assert jobs[0].lora == jobs[1].lora > 0
    plan.planned(made.run("training.method=all"))
    assert jobs[2].lora == 0


def test_what_the_package_carries_is_hashed_too(bench: Bench, jobs: list[KernelJob]) -> None:
    run = bench.make("prepare")
    folder = dag.folder(run, "package") / "bundle"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"0" * 1000)
    plan.planned(run)
    assert jobs[0].carried == 1000


def test_a_speed_that_a_stage_noted_is_used(made: Bench, jobs: list[KernelJob]) -> None:
    run = made.run()
    note_speed(run, "predict")
    found = plan.planned(run)
    assert found.notes[0] == "speed: 2,000 tokens a second in predict on T4"
    (seen,) = (one for one in jobs[0].measured if one.where == "predict")
    assert (seen.packs, seen.precision, seen.four_bit, seen.processes) == (100, "fp16", False, 1)


def test_a_list_that_was_kept_on_disk_tells_no_speed(made: Bench, jobs: list[KernelJob]) -> None:
    run = made.run()
    note_speed(run, "predict", tokens=0, packs=0)
    plan.planned(run)
    assert "predict" not in {one.where for one in jobs[0].measured}


def test_a_speed_on_a_gpu_that_kaggle_does_not_have_is_left_out(
    made: Bench, jobs: list[KernelJob]
) -> None:
    run = made.run()
    note_speed(run, "predict", gpu="NVIDIA GeForce RTX 4090, 24564 MiB")
    plan.planned(run)
    assert "predict" not in {one.where for one in jobs[0].measured}


def test_a_speed_of_a_stale_stage_is_left_out(made: Bench, jobs: list[KernelJob]) -> None:
    run = made.run()
    note_speed(run, "predict")
    (dag.folder(run, "predict") / "ranking.jsonl").write_text("")
    plan.planned(run)
    assert "predict" not in {one.where for one in jobs[0].measured}


def test_without_prepared_texts_the_command_is_named(bench: Bench) -> None:
    with pytest.raises(StaleInput, match=r"run: invoke prepare --run small\.toml"):
        plan.planned(bench.run())


def test_a_device_that_kaggle_does_not_have_is_refused(bench: Bench) -> None:
    with pytest.raises(BadConfig, match="p100"):
        plan.plan(bench.run(), "p100")


def test_no_weights_are_loaded(bench: Bench, tmp_path: Path) -> None:
    run = bench.make("prepare")
    before = benches.digests(run.workspace.root)
    seen: list[str] = []

    def refuse(*_: object, **__: object) -> None:
        seen.append("loaded")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("parity.retrieval.models.loading.load", refuse)
        plan.planned(run)
    assert seen == []
    assert benches.digests(run.workspace.root) == before
