"""`plan --device here`: tokens, seconds and memory of mining, scoring and training on this machine.

No weights are loaded: texts are rendered, tokenized and packed as in the stages. For finished
stages the plan also shows the real durations.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.competition.query import Query
from parity.deploy.planning import devices, local_plan
from parity.deploy.planning.local_plan import Kind, LocalJob, LocalPlan, MeasuredSpeed, TextList
from parity.pipeline import dag, dataset, encoder_loading, token_memory, training_plan
from parity.pipeline.dag import StageGraph
from parity.pipeline.dataset import Dataset
from parity.pipeline.model_reference import BASE
from parity.pipeline.token_memory import speed_settings, training_settings
from parity.retrieval import tokenizer as readers
from parity.retrieval.engine import trie
from parity.retrieval.models import shape as weights
from parity.retrieval.retrieve import passages, render_queries
from parity.retrieval.tokenizer import Tokenizer, Tokens
from parity.run import environment
from parity.run import manifest as manifests
from parity.run.config import stage_settings
from parity.run.config.prompt import PromptConfig
from parity.run.config.run_file import Config
from parity.run.config.training import TrainingConfig
from parity.run.errors import StaleInput
from parity.run.experiment import Run
from parity.run.manifest import Manifest
from parity.run.paths import RunPaths
from parity.training import negatives
from parity.training.batches import at_once

_ENCODING = ("mine", "eval")  # stages that report the lists they encoded
_LABELS = {"encode the corpus": "corpus", "encode the queries": "queries"}


def print_local_plan(run: Run) -> dict[str, Any]:
    """Print the plan for this machine, and return it as plain values.

    Raises:
        StaleInput: the run's texts have not been prepared.
    """
    plan = build_local_plan(run)
    print(plan.as_text())
    return plan.as_json()


def build_local_plan(run: Run) -> LocalPlan:
    """Return the plan of mining, scoring and training on this machine.

    Raises:
        StaleInput: the run's texts have not been prepared.
    """
    config = run.config
    if StageGraph().standing(run, "prepare").state != "done":
        raise StaleInput("prepare is missing or stale", fix=run.at(0).command_words("prepare"))
    data = dataset.load(run.config, run.workspace)
    base = encoder_loading.load_base(config.encoder, run.workspace)
    tokenizer = readers.load_tokenizer(base, config.encoder)
    shape = weights.read_shape(base.folder, config.encoder.num_layers)
    gpus = environment.gpu() if config.encoder.device != "cpu" else ""
    training = config.training
    lora_values = training.r * (shape.inputs + shape.outputs) if training.method == "lora" else 0
    finished, mined = _finished_stages(run), dag.folder(run, "mine") / "negatives.jsonl"
    train_lists = _train_lists(tokenizer, config, data, mined) if "mine" in finished else ()
    job = LocalJob(
        name=f"{config.name}, round {run.round}",
        device=devices.local_machine(gpus, cpus=_threads(), ram=_ram()),
        encoder=config.encoder,
        training=training,
        shape=shape,
        lora_values=lora_values,
        lists=(*_encode_lists(tokenizer, config, data, run.round), *train_lists),
        measurements=tuple(_measurements(run.workspace, config, gpus)),
        bytes_per_token=token_memory.logged_bytes_per_token(
            run.workspace.bytes_per_token, config, gpus
        ),
        actual_seconds=dict(_actual_seconds(finished)),
        notes=tuple(_notes(finished, train_lists, training.epochs, run.command("mine"))),
    )
    return local_plan.build_plan(job)


def _encode_lists(
    tokenizer: Tokenizer, config: Config, data: Dataset, round_: int
) -> Iterator[TextList]:
    prompt = config.prompt
    corpus = passages(tokenizer, prompt, data.corpus)
    kind: Kind = "adapter" if round_ else "base"
    yield _text_list(tokenizer, "mine corpus", kind, corpus)
    mining_prompt = stage_settings.mining_config(config).prompt
    tokens = _query_tokens(tokenizer, mining_prompt, data, data.train)
    yield _text_list(tokenizer, "mine queries", kind, tokens)
    if data.valid:
        yield _text_list(tokenizer, "eval corpus", "adapter", corpus)
        for name, rows in (("probe", data.probe), ("queries", data.valid)):
            tokens = _query_tokens(tokenizer, prompt, data, rows)
            yield _text_list(tokenizer, f"eval {name}", "adapter", tokens)


def _query_tokens(
    tokenizer: Tokenizer, prompt: PromptConfig, data: Dataset, rows: Sequence[Query]
) -> list[list[int]]:
    return render_queries(tokenizer, prompt, rows, dataset.shown(data, prompt, rows)).tokens


def _text_list(
    tokenizer: Tokenizer, name: str, kind: Kind, sequences: Sequence[Tokens], budget: int = 0
) -> TextList:
    packs = tokenizer.packs(sequences, budget or tokenizer.config.token_budget)
    counts = trie.count_tokens(packs, sequences)
    return TextList(
        name=name,
        kind=kind,
        sequences=counts.sequences,
        tokens=counts.tokens_without_sharing,
        packed_tokens=counts.tokens_with_sharing,
        packs=counts.packs,
        peak_tokens=max(map(len, packs), default=0),
    )


def _train_lists(
    tokenizer: Tokenizer, config: Config, data: Dataset, path: Path
) -> tuple[TextList, ...]:
    """Return the first epoch's steps as one list, packed batch by batch."""
    mined = negatives.read(path, data.corpus)
    config = stage_settings.training_config(config)
    plan, _ = training_plan.build_training_plan(tokenizer, config, data, mined, "")
    budget = config.training.token_budget
    batches = []
    for batch in plan.epochs[0]:
        query_tokens, passage_tokens = plan.tokens(batch)
        batches.append(_batch_list(tokenizer, [*query_tokens, *passage_tokens], budget))
    epoch = TextList(
        name="train epoch",
        kind="train",
        sequences=sum(batch.sequences for batch in batches),
        tokens=sum(batch.tokens for batch in batches),
        packed_tokens=sum(batch.packed_tokens for batch in batches),
        packs=sum(batch.packs for batch in batches),
        # Further packs of a step are run again for their gradients, one after the other.
        peak_tokens=max(batch.peak_tokens for batch in batches),
        recomputed_tokens=sum(batch.recomputed_tokens for batch in batches),
    )
    return (epoch,)


def _batch_list(tokenizer: Tokenizer, sequences: Sequence[Tokens], budget: int) -> TextList:
    batch = _text_list(tokenizer, "", "train", sequences, budget)
    is_one_pass = at_once(batch.packs, batch.packed_tokens, budget)
    return replace(batch, recomputed_tokens=0 if is_one_pass else batch.packed_tokens)


def _finished_stages(run: Run) -> dict[str, Manifest]:
    """Return stage → manifest of those of mining, scoring and training that are done."""
    graph = StageGraph()
    statuses = {stage: graph.standing(run, stage) for stage in (*_ENCODING, "train")}
    return {
        stage: status.manifest
        for stage, status in statuses.items()
        if status.manifest and status.state == "done"
    }


def _stage_stats(finished: Mapping[str, Manifest]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield stage, label and statistics of each list that a finished stage encoded."""
    for stage in _ENCODING:
        manifest = finished.get(stage)
        for label, stats in (manifest.facts.get("took", {}) if manifest else {}).items():
            yield stage, label, stats


def _actual_seconds(finished: Mapping[str, Manifest]) -> Iterator[tuple[str, float]]:
    """Yield name of a list → seconds it took; below 0 if its embeddings were cached."""
    for stage, label, stats in _stage_stats(finished):
        if label in _LABELS:
            yield f"{stage} {_LABELS[label]}", -1.0 if stats["cached"] else stats["seconds"]


def _notes(
    finished: Mapping[str, Manifest], train_lists: Sequence[TextList], epochs: int, command: str
) -> Iterator[str]:
    if not train_lists:
        yield f"train: its steps are counted once negatives are mined; {command}"
    else:
        yield f"train: {epochs} epochs, each followed by scoring as in eval"
    for stage, label, stats in _stage_stats(finished):
        if not stats["cached"]:
            yield (
                f"{stage} {_LABELS.get(label, label)} took {stats['tokens']:,} tokens in "
                f"{stats['packs']:,} packs of {stats['budget']:,}, {stats['seconds']} s"
            )
    if manifest := finished.get("train"):
        yield _training_note(manifest)


def _training_note(manifest: Manifest) -> str:
    peak, steps = manifest.facts.get("peak_gib", 0.0), manifest.facts.get("steps", 0)
    details = f", at most {peak} GiB of the GPU" if peak else ""
    if spent := manifest.facts.get("spent"):
        details = f": {spent['tokens']:,} tokens in {spent['seconds']:,.0f} s of it{details}"
    return f"train took {steps} steps and {manifest.seconds:,.0f} s, scoring included{details}"


def _measurements(paths: RunPaths, config: Config, gpus: str) -> Iterator[MeasuredSpeed]:
    """Yield the speeds of this base that any run measured on a machine like this one."""
    expected = speed_settings(config.encoder.model_dump(mode="json"))
    for path in paths.finished():
        manifest = manifests.read(path.parent)
        # A rehearsal's or a kernel's speed is another process's, its encoder not in the manifest.
        if manifest is None or not manifest.facts.keys() & {"took", "spent"}:
            continue
        if not _is_this_machine(manifest, gpus):
            continue
        is_same_encoder = speed_settings(manifest.config["encoder"]) == expected
        if is_same_encoder and manifest.facts["speed"]["processes"] == 1:
            yield from _encode_speeds(manifest)
            yield from _train_speeds(config.training, manifest)


def _encode_speeds(manifest: Manifest) -> Iterator[MeasuredSpeed]:
    kind: Kind = "base" if manifest.facts.get("model") == BASE else "adapter"
    for stats in manifest.facts.get("took", {}).values():
        if stats["tokens"]:
            yield MeasuredSpeed(
                manifest.stage, kind, stats["tokens"], stats["packs"], stats["seconds"]
            )


def _train_speeds(training: TrainingConfig, manifest: Manifest) -> Iterator[MeasuredSpeed]:
    """Yield the speed of a training with the settings of this run."""
    spent = manifest.facts.get("spent")
    if not spent:
        return
    expected = training_settings(training.model_dump())
    if training_settings(manifest.config["training"]) == expected:
        steps = manifest.facts["steps"]
        yield MeasuredSpeed("train", "train", spent["tokens"], steps, spent["seconds"])


def _is_this_machine(manifest: Manifest, gpus: str) -> bool:
    expected = {"cpus": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS", "")}
    is_same_host = all(manifest.environment.get(key) == value for key, value in expected.items())
    return is_same_host and manifest.facts["speed"]["gpu"] == gpus


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def _ram() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
