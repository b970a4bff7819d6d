"""Whether the kernel's run will fit on Kaggle: its time, and the memory of its device."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from parity.competition.query import Query
from parity.deploy.planning import devices, kernel_plan
from parity.deploy.planning.kernel_plan import KernelJob, MeasuredKernel, TokenCounts
from parity.deploy.planning.plan_result import Plan
from parity.deploy.planning.plan_result import refusal as refused
from parity.pipeline import dag, dataset, encoder_loading
from parity.pipeline.dag import StageGraph
from parity.pipeline.dataset import Dataset
from parity.retrieval import tokenizer as readers
from parity.retrieval.models import adapter as adapters
from parity.retrieval.models import shape as weights
from parity.retrieval.models.shape import ModelShape
from parity.retrieval.retrieve import RenderedQueries, passages, render_queries
from parity.retrieval.tokenizer import Tokenizer
from parity.run import digest
from parity.run.config.run_file import PromptConfig
from parity.run.errors import Mismatch, StaleInput
from parity.run.experiment import Run

_MOST = 6000  # rows that are counted; a few seconds a thousand, where prompts are long
_MEASURING = ("follow", "rehearse", "predict", "eval")  # stages that may have noted their speed
_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def plan(run: Run, device: str = "", queries: int = 0) -> dict[str, Any]:
    """Print whether the run fits, and return it as plain values.

    Args:
        run: at its round.
        device: of Kaggle; empty is what the run names.
        queries: rows of the hidden test; 0 is what the run says.

    Raises:
        Mismatch: it is over a limit even at the lower bound; names what would make it fit.
        StaleInput: the run's texts have not been prepared.
    """
    found = planned(run, device, queries)
    print(found.as_text())
    if why := refused(found):
        raise Mismatch(why)
    return found.as_json()


def refusal(run: Run) -> Mismatch | None:
    """Return why the run must not be pushed as it is, or None where it may fit."""
    why = refused(planned(run))
    if not why:
        return None
    return Mismatch(f"{why}; to push it all the same: {run.command('push', '--accept-risk')}")


def planned(run: Run, device: str = "", queries: int = 0) -> Plan:
    """Return the plan of the run's kernel; its weights are not loaded.

    Raises:
        BadConfig: there is no such device, or the base's files do not say what they hold.
        StaleInput: the run's texts have not been prepared.
    """
    config = run.config
    on = devices.device(device or config.shipping.device)
    rows = queries or config.shipping.queries
    if StageGraph().standing(run, "prepare").state != "done":
        raise StaleInput(f"prepare is missing or stale; run: {run.command('prepare')}")
    known, base = dataset.load(run), encoder_loading.base(run)
    reader = readers.opened(base, config.encoder)
    shape = weights.shape(base.folder, config.encoder.num_layers)
    job = KernelJob(
        name=f"{config.name}, round {run.round}",
        device=on,
        encoder=config.encoder,
        shape=shape,
        lora=_lora(run, shape),
        counted=_counted(reader, config.prompt, known, rows),
        queries=rows,
        hours=config.shipping.hours,
        carried=_size(dag.folder(run, "package")),
        measured=tuple(_measured(run)),
    )
    found = kernel_plan.make(job)
    if found.fits != "no" or not config.prompt.example_count:
        return found
    bare = config.prompt.model_copy(update={"examples": "none", "example_count": 0})
    if not kernel_plan.may_fit(replace(job, counted=_counted(reader, bare, known, rows))):
        return found
    flags = "--set=prompt.examples=none --set=prompt.example_count=0 (a new training)"
    return replace(found, mends=(*found.mends, flags))


def _counted(reader: Tokenizer, prompt: PromptConfig, known: Dataset, most: int) -> TokenCounts:
    """Render, tokenize and pack the run's own texts, as the one retrieval does."""
    rows = _sample([*known.test, *known.queries], min(most, _MOST))
    cut = len(_sample(rows, max(1, len(rows) // 2)))
    started = time.monotonic()
    asked = _ask(reader, prompt, known, rows)
    packs = reader.packs(asked.tokens)
    seconds = time.monotonic() - started
    corpus = passages(reader, prompt, known.corpus)
    probe = _ask(reader, prompt, known, known.probe)
    return TokenCounts(
        half=(cut, _nodes(reader, asked.tokens[:cut])),
        whole=(len(rows), sum(map(len, packs))),
        beside=_nodes(reader, corpus) + _nodes(reader, probe.tokens),
        packs=len(packs),
        longest=max(map(len, asked.tokens)),
        seconds=seconds,
    )


def _ask(
    reader: Tokenizer, prompt: PromptConfig, known: Dataset, rows: Sequence[Query]
) -> RenderedQueries:
    return render_queries(reader, prompt, rows, dataset.shown(known, prompt, rows))


def _nodes(reader: Tokenizer, sequences: Sequence[Sequence[int]]) -> int:
    return sum(map(len, reader.packs(sequences)))


def _sample(queries: Sequence[Query], most: int) -> list[Query]:
    """Return whole questions in an order that no file has, until there are `most` rows."""
    order = sorted(queries, key=lambda item: (digest.of_text(str(item.question_id)), item.answer))
    cut = min(most, len(order))
    while cut < len(order) and order[cut].question_id == order[cut - 1].question_id:
        cut += 1
    return order[:cut]


def _lora(run: Run, shape: ModelShape) -> int:
    """Return how many values the adapter has, or will have."""
    folder = run.workspace.adapter(run.round)
    if (folder / adapters.RECORD).is_file():
        tensors = weights.header(adapters.weights_of(folder)).items()
        return sum(math.prod(one.shape) for name, one in tensors if ".lora_" in name)
    training = run.config.training
    return training.r * (shape.inputs + shape.outputs) if training.method == "lora" else 0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _measured(run: Run) -> Iterator[MeasuredKernel]:
    """Yield the speeds that finished stages of this round have noted."""
    survey = StageGraph()
    for stage in _MEASURING:
        now = survey.standing(run, stage)
        speed = now.manifest.facts.get("speed") if now.manifest and now.state == "done" else None
        chip = devices.recognized(speed["gpu"]) if speed else None
        if speed and speed["tokens"] and chip:  # of a list kept on disk none were computed
            dtype, quantize = speed["precision"].split("/")
            yield MeasuredKernel(
                where=stage,
                chip=chip,
                tokens=speed["tokens"],
                packs=speed["packs"],
                seconds=speed["seconds"],
                processes=speed["processes"],
                precision=cast(Any, _PRECISIONS[dtype]),
                four_bit=quantize == "4bit",
            )
