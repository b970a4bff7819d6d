"""The kernel's plan: the run's own texts are counted as the encoder packs them, without weights."""

from pathlib import Path
from typing import Any

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture

from parity.deploy.planning import kernel_plan
from parity.deploy.planning.kernel_plan import KernelJob
from parity.deploy.planning.plan_report import KernelPlan
from parity.pipeline import dag, dataset, encoder_loading
from parity.pipeline.command_cores import plan
from parity.pipeline.stage import stage_context
from parity.retrieval.engine import trie
from parity.retrieval.retrieve import passages, render_queries
from parity.run import manifest as manifests
from parity.run.errors import BadConfig, Mismatch, StaleInput
from parity.run.experiment import Run


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[KernelJob]:
    """Return the list of planned jobs, which grows with each plan."""
    planned: list[KernelJob] = []
    build_plan = kernel_plan.build_plan

    def record_job(job: KernelJob) -> KernelPlan:
        planned.append(job)
        return build_plan(job)

    monkeypatch.setattr(kernel_plan, "build_plan", record_job)
    return planned


def note_speed(run: Run, stage: str, **changes: Any) -> None:
    """Write an embedding speed into the manifest of a finished stage."""
    speed = {
        "tokens": 50_000,
        "packs": 100,
        "seconds": 25.0,
        "processes": 1,
        "precision": "float16/none",
        "gpu": "Tesla T4, 15360 MiB",
    }
    folder = dag.folder(run, stage)
    manifest = manifests.read(folder)
    assert manifest is not None
    manifest.facts["speed"] = {**speed, **changes}
    manifests.write(folder, manifest, list(manifest.outputs))


def test_the_plan_counts_the_tokens_that_the_encoder_packs(
    small_run: RunFixture, jobs: list[KernelJob]
) -> None:
    run = small_run.run_stages("prepare")
    result = plan.planned(run)
    encoder = encoder_loading.load_encoder(run.config.encoder, run.workspace)
    data, prompt = dataset.load(run.config, run.workspace), run.config.prompt
    rows = [*data.test, *data.queries]
    rendered = render_queries(encoder, prompt, rows, dataset.shown(data, prompt, rows))
    probe = render_queries(encoder, prompt, data.probe, dataset.shown(data, prompt, data.probe))
    tokens = [
        sum(map(len, trie.pack(sequences, encoder.config.token_budget)))
        for sequences in (rendered.tokens, passages(encoder, prompt, data.corpus), probe.tokens)
    ]
    (counts,) = (job.counts for job in jobs)
    assert counts.sample == (len(rows), tokens[0])
    assert counts.fixed == tokens[1] + tokens[2]
    assert counts.packs == len(trie.pack(rendered.tokens, encoder.config.token_budget))
    assert counts.longest == max(map(len, rendered.tokens))
    assert 0 < counts.half[0] < len(rows)
    assert 0 < counts.half[1] < tokens[0]
    assert result.tokens.expected > tokens[0] * 16_000 / len(rows) / 2


def test_the_number_of_counted_rows_is_not_extrapolated(
    small_run: RunFixture, jobs: list[KernelJob]
) -> None:
    run = small_run.run_stages("prepare")
    data = dataset.load(run.config, run.workspace)
    rows = len(data.test) + len(data.queries)
    result = plan.planned(run, "", rows)
    assert result.tokens.expected == jobs[0].counts.sample[1] + jobs[0].counts.fixed


def test_the_sample_has_complete_questions_in_a_fixed_order(small_run: RunFixture) -> None:
    run = small_run.run_stages("prepare")
    data = dataset.load(run.config, run.workspace)
    everything = [*data.test, *data.queries]
    sample = plan._sample(everything, 10)
    assert 10 <= len(sample) <= 12
    units = {query.unit for query in sample}
    assert len(sample) == sum(query.unit in units for query in everything)
    assert sample == plan._sample(everything[::-1], 10)
    assert sorted(units) != [query.unit for query in everything][: len(units)]


def test_a_fitting_run_is_printed_and_returned(
    small_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_run.run_stages("prepare")
    capsys.readouterr()
    result = plan.plan(run)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("small, round 0: 16,000 queries on t4x2 (2 × T4, queries), fp32")
    assert text.endswith("fits: yes\n")
    assert result["fits"] == "yes"
    assert plan.refusal(run) is None


def test_device_and_queries_come_from_the_run_unless_passed(
    small_run: RunFixture, jobs: list[KernelJob]
) -> None:
    small_run.run_stages("prepare")
    run = small_run.open("shipping.device=l4x1", "shipping.queries=900", "shipping.hours=2.5")
    plan.planned(run)
    plan.planned(run, "cpu", 50)
    result = [(job.device.name, job.queries, job.hours) for job in jobs]
    assert result == [("l4x1", 900, 2.5), ("cpu", 50, 2.5)]


def test_a_run_over_the_limit_is_printed_then_refused(
    small_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    small_run.run_stages("prepare")
    run = small_run.open("shipping.hours=0.001")
    with pytest.raises(Mismatch, match=r"time is at least \d+ s of 4 s\. It may fit with"):
        plan.plan(run)
    assert capsys.readouterr().out.endswith("fits: no\n")
    refused = plan.refusal(run)
    assert isinstance(refused, Mismatch)
    assert refused.fix == run.command_words("push", "--accept-risk")


def test_a_prompt_without_examples_is_listed_as_a_fix(small_run: RunFixture) -> None:
    small_run.write_config(
        "shown", prompt={"examples": "random", "example_count": 3, "query_max_length": 400}
    )
    run = small_run.run_stages("prepare", name="shown")
    no_examples = run.config.prompt.model_copy(update={"examples": "none", "example_count": 0})
    with_examples, without_examples = (
        plan.planned(item, "cpu", 2_000_000).steps["encode"].lower / 3600
        for item in (
            run,
            Run(run.file, run.config.model_copy(update={"prompt": no_examples}), run.workspace),
        )
    )
    assert without_examples < with_examples
    sets = (f"shipping.hours={(with_examples + without_examples) / 2:.3f}", "shipping.device=cpu")
    tight = small_run.open(*sets, "shipping.queries=2000000", name="shown")
    result = plan.planned(tight)
    assert result.fits == "no"
    assert result.fixes[-1].startswith("--set=prompt.examples=none")


def test_the_size_of_a_missing_adapter_is_predicted(
    predicted_run: RunFixture, jobs: list[KernelJob]
) -> None:
    run = predicted_run.open()
    plan.planned(run)
    adapter = run.workspace.adapter(0)
    adapter.rename(adapter.with_name("elsewhere"))
    plan.planned(run)
    assert jobs[0].lora_values == jobs[1].lora_values > 0
    plan.planned(predicted_run.open("training.method=all"))
    assert jobs[2].lora_values == 0


def test_the_package_is_hashed_too(small_run: RunFixture, jobs: list[KernelJob]) -> None:
    run = small_run.run_stages("prepare")
    folder = dag.folder(run, "package") / "bundle"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"0" * 1000)
    plan.planned(run)
    assert jobs[0].package_bytes == 1000


def test_a_packaged_run_is_planned_with_the_settings_of_its_bundle(
    predicted_run: RunFixture, jobs: list[KernelJob]
) -> None:
    with (predicted_run.folder / "small.toml").open("a") as file:
        file.write("[evaluations.half]\nencoder.precision = 'fp16'\n")
    run = predicted_run.open()
    plan.planned(run)
    with stage_context(run.evaluated_as("half"), "package"):
        pass  # its manifest names the evaluation
    plan.planned(run)
    assert [job.encoder.precision for job in jobs] == ["fp32", "fp16"]


def test_a_measured_speed_of_a_stage_is_used(
    predicted_run: RunFixture, jobs: list[KernelJob]
) -> None:
    run = predicted_run.open()
    note_speed(run, "predict")
    result = plan.planned(run)
    assert result.notes[0] == "speed: 2,000 tokens a second in predict on T4"
    (seen,) = (item for item in jobs[0].measurements if item.source == "predict")
    assert (seen.packs, seen.precision, seen.is_four_bit, seen.processes) == (100, "fp16", False, 1)


def test_cached_embeddings_do_not_give_a_speed(
    predicted_run: RunFixture, jobs: list[KernelJob]
) -> None:
    run = predicted_run.open()
    note_speed(run, "predict", tokens=0, packs=0)
    plan.planned(run)
    assert "predict" not in {item.source for item in jobs[0].measurements}


def test_a_speed_on_a_gpu_that_kaggle_does_not_have_is_ignored(
    predicted_run: RunFixture, jobs: list[KernelJob]
) -> None:
    run = predicted_run.open()
    note_speed(run, "predict", gpu="NVIDIA GeForce RTX 4090, 24564 MiB")
    plan.planned(run)
    assert "predict" not in {item.source for item in jobs[0].measurements}


def test_a_speed_of_a_stale_stage_is_ignored(
    predicted_run: RunFixture, jobs: list[KernelJob]
) -> None:
    run = predicted_run.open()
    note_speed(run, "predict")
    (dag.folder(run, "predict") / "ranking.jsonl").write_text("")
    plan.planned(run)
    assert "predict" not in {item.source for item in jobs[0].measurements}


def test_without_prepared_texts_the_fix_is_prepare(small_run: RunFixture) -> None:
    with pytest.raises(StaleInput) as error:
        plan.planned(small_run.open())
    assert error.value.fix == small_run.open().command_words("prepare")


def test_a_device_that_kaggle_does_not_have_is_refused(small_run: RunFixture) -> None:
    with pytest.raises(BadConfig, match="p100"):
        plan.plan(small_run.open(), "p100")


def test_no_weights_are_loaded(small_run: RunFixture, tmp_path: Path) -> None:
    run = small_run.run_stages("prepare")
    before = run_fixture.digests(run.workspace.root)
    calls: list[str] = []

    def refuse(*_: object, **__: object) -> None:
        calls.append("loaded")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("parity.retrieval.models.loading.load", refuse)
        plan.planned(run)
    assert calls == []
    assert run_fixture.digests(run.workspace.root) == before
