"""Estimate whether the kernel fits Kaggle's limits: its time, and the memory of its device."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from parity.competition.query import Query
from parity.deploy.planning import devices, kernel_plan
from parity.deploy.planning.kernel_plan import KernelJob, MeasuredKernel, TokenCounts
from parity.deploy.planning.plan_report import KernelPlan
from parity.deploy.planning.plan_report import refusal as refused
from parity.pipeline import changes, dag, dataset, encoder_loading
from parity.pipeline.command_cores import local_plan
from parity.pipeline.dag import StageGraph
from parity.pipeline.dataset import Dataset
from parity.pipeline.registry import stage_names
from parity.retrieval import tokenizer as tokenizers
from parity.retrieval.models import adapter as adapters
from parity.retrieval.models import shape as weights
from parity.retrieval.models.shape import ModelShape
from parity.retrieval.retrieve import RenderedQueries, passages, render_queries
from parity.retrieval.tokenizer import Tokenizer
from parity.run import digest
from parity.run import manifest as manifests
from parity.run.config.prompt import PromptConfig
from parity.run.config.training import TrainingConfig
from parity.run.errors import Mismatch, StaleInput
from parity.run.experiment import Run

_MOST = 6000  # rows to count; long prompts take a few seconds for a thousand
_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def plan_kernel_or_machine(run: Run, *, device: str, queries: int) -> dict[str, Any]:
    """Plan the kernel on Kaggle, or with device `here` the stages on this machine."""
    return local_plan.print_local_plan(run) if device == "here" else plan(run, device, queries)


def plan(run: Run, device: str = "", queries: int = 0) -> dict[str, Any]:
    """Print whether the kernel fits Kaggle's limits and return the plan as plain values.

    Args:
        run: run at its round.
        device: name of Kaggle's device; empty takes the run file's.
        queries: rows of the hidden test; 0 takes the run file's.

    Raises:
        Mismatch: even the lower bound is over a limit; names what would make it fit.
        StaleInput: the run is not prepared.
    """
    result = planned(run, device, queries)
    print(result.as_text())
    if message := refused(result):
        raise Mismatch(message)
    return result.as_json()


def refusal(run: Run) -> Mismatch | None:
    """Return why the kernel must not be pushed as it is, or None where it may fit."""
    message = refused(planned(run))
    if not message:
        return None
    return Mismatch(f"{message}; or push anyway", fix=run.command_words("push", "--accept-risk"))


def planned(run: Run, device: str = "", queries: int = 0) -> KernelPlan:
    """Return the plan of the run's kernel; its weights are not loaded.

    A packaged run is planned with the settings that are in its bundle.

    Raises:
        BadConfig: the device is unknown, or the base model's files do not show its shape.
        StaleInput: the run is not prepared.
    """
    run = _as_packaged(run)
    config = run.config
    target = devices.find_device(device or config.shipping.device)
    rows = queries or config.shipping.queries
    if StageGraph().standing(run, "prepare").state != "done":
        raise StaleInput(
            f"prepare of {config.name} is missing or stale",
            fix=run.at(0).command_words("prepare"),
        )
    data = dataset.load(run.config, run.workspace)
    base = encoder_loading.load_base(config.encoder, run.workspace)
    tokenizer = tokenizers.load_tokenizer(base, config.encoder)
    shape = weights.read_shape(base.folder, config.encoder.num_layers)
    job = KernelJob(
        name=f"{config.name}, round {run.round}",
        device=target,
        encoder=config.encoder,
        shape=shape,
        lora_values=_lora_values(run.workspace.adapter(run.round), config.training, shape),
        counts=_count_tokens(tokenizer, config.prompt, data, rows),
        queries=rows,
        hours=config.shipping.hours,
        package_bytes=_size(dag.folder(run, "package")),
        measurements=tuple(_measurements(run)),
    )
    result = kernel_plan.build_plan(job)
    if result.fits != "no" or not config.prompt.example_count:
        return result
    short = config.prompt.model_copy(update={"examples": "none", "example_count": 0})
    if not kernel_plan.can_fit(replace(job, counts=_count_tokens(tokenizer, short, data, rows))):
        return result
    flags = "--set=prompt.examples=none --set=prompt.example_count=0 (a new training)"
    return replace(result, fixes=(*result.fixes, flags))


def _as_packaged(run: Run) -> Run:
    """Return the run with the settings that `package --as` chose, unless the user names others."""
    packed = manifests.read(dag.folder(run, "package"))
    return changes.as_recorded(run, packed) if packed else run


def _count_tokens(
    tokenizer: Tokenizer, prompt: PromptConfig, data: Dataset, limit: int
) -> TokenCounts:
    """Return the token counts of the run's own texts, rendered and packed as in retrieval."""
    rows = _sample([*data.test, *data.queries], min(limit, _MOST))
    end = len(_sample(rows, max(1, len(rows) // 2)))
    started = time.monotonic()
    rendered = _render(tokenizer, prompt, data, rows)
    packs = tokenizer.packs(rendered.tokens)
    seconds = time.monotonic() - started
    corpus = passages(tokenizer, prompt, data.corpus)
    probe = _render(tokenizer, prompt, data, data.probe)
    return TokenCounts(
        half=(end, _packed_tokens(tokenizer, rendered.tokens[:end])),
        sample=(len(rows), sum(map(len, packs))),
        fixed=_packed_tokens(tokenizer, corpus) + _packed_tokens(tokenizer, probe.tokens),
        packs=len(packs),
        longest=max(map(len, rendered.tokens)),
        seconds=seconds,
    )


def _render(
    tokenizer: Tokenizer, prompt: PromptConfig, data: Dataset, rows: Sequence[Query]
) -> RenderedQueries:
    return render_queries(tokenizer, prompt, rows, dataset.shown(data, prompt, rows))


def _packed_tokens(tokenizer: Tokenizer, sequences: Sequence[Sequence[int]]) -> int:
    return sum(map(len, tokenizer.packs(sequences)))


def _sample(queries: Sequence[Query], limit: int) -> list[Query]:
    """Return whole units in an order that no file has, until there are `limit` rows."""
    order = sorted(queries, key=lambda item: (digest.of_text(item.unit), item.order))
    end = min(limit, len(order))
    while end < len(order) and order[end].unit == order[end - 1].unit:
        end += 1
    return order[:end]


def _lora_values(folder: Path, training: TrainingConfig, shape: ModelShape) -> int:
    """Return how many values the adapter in a folder has, or will have."""
    if (folder / adapters.RECORD).is_file():
        tensors = weights.read_header(adapters.weights_path(folder)).items()
        return sum(math.prod(tensor.shape) for name, tensor in tensors if ".lora_" in name)
    return training.r * (shape.inputs + shape.outputs) if training.method == "lora" else 0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _measurements(run: Run) -> Iterator[MeasuredKernel]:
    """Yield the speeds in the manifests of this round's finished stages."""
    graph = StageGraph()
    for stage in reversed(stage_names(measures_kernel=True)):  # nearest to Kaggle first
        status = graph.standing(run, stage)
        speed = (
            status.manifest.facts.get("speed")
            if status.manifest and status.state == "done"
            else None
        )
        chip = devices.recognize_chip(speed["gpu"]) if speed else None
        if speed and speed["tokens"] and chip:  # a cached list has none
            dtype, quantize = speed["precision"].split("/")
            yield MeasuredKernel(
                source=stage,
                chip=chip,
                tokens=speed["tokens"],
                packs=speed["packs"],
                seconds=speed["seconds"],
                processes=speed["processes"],
                precision=cast(Any, _PRECISIONS[dtype]),
                is_four_bit=quantize == "4bit",
            )
