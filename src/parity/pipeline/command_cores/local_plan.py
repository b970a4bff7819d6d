"""Tokens, seconds and memory of mining, scoring and training here; and, once done, the real ones.

No weights are loaded: texts are rendered, tokenized and packed as the stages will do it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.competition.query import Query
from parity.deploy.planning import devices, local_plan
from parity.deploy.planning.local_plan import Kind, LocalJob, LocalPlan, MeasuredSpeed, TextList
from parity.pipeline import dag, dataset, encoder_loading, training_plan
from parity.pipeline.dag import StageGraph
from parity.pipeline.dataset import Dataset
from parity.retrieval import tokenizer as readers
from parity.retrieval.engine import trie
from parity.retrieval.models import shape as weights
from parity.retrieval.retrieve import passages, render_queries
from parity.retrieval.tokenizer import Tokenizer, Tokens
from parity.run import environment, files
from parity.run import manifest as manifests
from parity.run.errors import StaleInput
from parity.run.experiment import Run
from parity.run.manifest import Manifest
from parity.training import negatives
from parity.training.batches import at_once

_LABELS = {"encode the corpus": "corpus", "encode the queries": "queries"}
_SAME = ("base", "num_layers", "precision", "quantize", "attention")  # that a speed belongs to


def here(run: Run) -> dict[str, Any]:
    """Print what the run will take on this machine, and return it as plain values.

    Raises:
        StaleInput: the run's texts have not been prepared.
    """
    found = planned(run)
    print(found.as_text())
    return found.as_json()


def planned(run: Run) -> LocalPlan:
    """Return the plan of mining, scoring and training on this machine.

    Raises:
        StaleInput: the run's texts have not been prepared.
    """
    config = run.config
    if StageGraph().standing(run, "prepare").state != "done":
        raise StaleInput(f"prepare is missing or stale; run: {run.command('prepare')}")
    known, base = dataset.load(run), encoder_loading.base(run)
    reader = readers.opened(base, config.encoder)
    shape = weights.shape(base.folder, config.encoder.num_layers)
    gpus = environment.gpu() if config.encoder.device != "cpu" else ""
    training = config.training
    lora = training.r * (shape.inputs + shape.outputs) if training.method == "lora" else 0
    trained = _trained(run, reader, known)
    work = LocalJob(
        name=f"{config.name}, round {run.round}",
        device=devices.machine(gpus, cpus=_threads(), ram=_ram()),
        encoder=config.encoder,
        training=training,
        shape=shape,
        lora=lora,
        lists=(*_encoded(run, reader, known), *trained),
        seen=tuple(_seen(run, gpus)),
        nodes=seen_nodes(run, gpus),
        took=dict(_took(run)),
        notes=tuple(_notes(run, trained)),
    )
    return local_plan.make(work)


def note(run: Run, gpu: str, kind: Kind, node: float) -> None:
    """Remember the bytes that a token took of a GPU, where that was seen; the most counts.

    Args:
        run: whose base and training it was.
        gpu: as the encoder's `speed` names it.
        kind: what ran.
        node: bytes of one token; 0 where that is not known.
    """
    if not node:
        return
    path, key = run.workspace.taken, _key(run, gpu)
    before = files.read_json(path) if path.is_file() else {}
    known, name = before.get(key, {}), _names(run)[kind]
    known[name] = round(max(node, known.get(name, 0.0)), 1)
    files.write_json(path, {**before, key: known})


def note_lists(run: Run, kind: Kind, facts: dict[str, Any]) -> None:
    """Remember the bytes that a token of a stage's lists took.

    Args:
        run: whose base it was.
        kind: what ran.
        facts: of the stage: `speed` and `took`, as an encoder tells them.
    """
    lists = facts["took"].values()
    # Without a full pack nothing can be said of one token.
    whole = [one for one in lists if one["peak"] and one["tokens"] >= one["budget"]]
    node = max((one["peak"] / one["budget"] for one in whole), default=0.0)
    note(run, facts["speed"]["gpu"], kind, node)


def seen_nodes(run: Run, gpu: str) -> dict[str, float]:
    """Return kind → bytes that a token of this run's base was seen to take of such a GPU."""
    path = run.workspace.taken
    known = files.read_json(path) if path.is_file() else {}
    found: dict[str, float] = known.get(_key(run, gpu), {})
    return {kind: found[name] for kind, name in _names(run).items() if name in found}


def _names(run: Run) -> dict[Kind, str]:
    """Return kind → its name in the file: of a training with what decides how much it holds."""
    way = _way(run.config.training.model_dump())
    return {"base": "base", "adapter": "adapter", "train": " ".join(["train", *way])}


def _way(training: Mapping[str, Any]) -> tuple[str, ...]:
    kept = "checkpointed" if training.get("gradient_checkpointing") else "kept"
    return (str(training.get("method")), str(training.get("r")), kept)


def _key(run: Run, gpu: str) -> str:
    same = _same(run.config.encoder.model_dump(mode="json"))
    return " ".join([gpu.split(";")[0], *same])


def _same(encoder: dict[str, Any]) -> list[str]:
    values = [encoder.get(name) for name in _SAME]
    return [encoder_loading.portable(str(values[0])), *map(str, values[1:])]


def _encoded(run: Run, reader: Tokenizer, known: Dataset) -> Iterator[TextList]:
    corpus = passages(reader, run.config.prompt, known.corpus)
    kind: Kind = "adapter" if run.round else "base"
    yield _listed(reader, "mine corpus", kind, corpus)
    yield _listed(reader, "mine queries", kind, _asked(run, reader, known, known.train))
    if known.valid:
        yield _listed(reader, "eval corpus", "adapter", corpus)
        yield _listed(reader, "eval probe", "adapter", _asked(run, reader, known, known.probe))
        yield _listed(reader, "eval queries", "adapter", _asked(run, reader, known, known.valid))


def _asked(run: Run, reader: Tokenizer, known: Dataset, rows: Sequence[Query]) -> list[list[int]]:
    prompt = run.config.prompt
    return render_queries(reader, prompt, rows, dataset.shown(known, prompt, rows)).tokens


def _listed(
    reader: Tokenizer, name: str, kind: Kind, sequences: Sequence[Tokens], budget: int = 0
) -> TextList:
    packs = reader.packs(sequences, budget or reader.config.token_budget)
    found = trie.counts(packs, sequences)
    held = max(map(len, packs), default=0)
    return TextList(name, kind, found.sequences, found.flat, found.packed, found.packs, held)


def _trained(run: Run, reader: Tokenizer, known: Dataset) -> tuple[TextList, ...]:
    """Return the first epoch's steps, packed batch by batch; nothing where none can be planned."""
    if StageGraph().standing(run, "mine").state != "done":
        return ()
    mined = negatives.read(dag.folder(run, "mine") / "negatives.jsonl")
    planned, _ = training_plan.build_training_plan(reader, run.config, known, mined, "")
    batches = []
    for batch in planned.epochs[0]:
        asked, answers = planned.tokens(batch)
        budget = run.config.training.token_budget
        batches.append(_batch(reader, [*asked, *answers], budget))
    whole = TextList(
        name="train epoch",
        kind="train",
        sequences=sum(batch.sequences for batch in batches),
        flat=sum(batch.flat for batch in batches),
        packed=sum(batch.packed for batch in batches),
        packs=sum(batch.packs for batch in batches),
        # Further packs of a step are run again for their gradients, one after the other.
        held=max(batch.held for batch in batches),
        again=sum(batch.again for batch in batches),
    )
    return (whole,)


def _batch(reader: Tokenizer, sequences: Sequence[Tokens], budget: int) -> TextList:
    one = _listed(reader, "", "train", sequences, budget)
    return replace(one, again=0 if at_once(one.packs, one.packed, budget) else one.packed)


def _finished(run: Run, stage: str) -> Manifest | None:
    now = StageGraph().standing(run, stage)
    return now.manifest if now.state == "done" else None


def _took(run: Run) -> Iterator[tuple[str, float]]:
    """Yield name of a list → the seconds that it really took; below 0 where it was kept."""
    for stage in ("mine", "eval"):
        found = _finished(run, stage)
        for label, one in (found.facts.get("took", {}) if found else {}).items():
            if label in _LABELS:
                yield f"{stage} {_LABELS[label]}", -1.0 if one["kept"] else one["seconds"]


def _notes(run: Run, trained: tuple[TextList, ...]) -> Iterator[str]:
    epochs = run.config.training.epochs
    if not trained:
        yield f"train: its steps are known once negatives are mined; {run.command('mine')}"
    else:
        yield f"train: {epochs} epochs, each followed by a scoring like eval's"
    for stage in ("mine", "eval"):
        found = _finished(run, stage)
        for label, one in (found.facts.get("took", {}) if found else {}).items():
            if not one["kept"]:
                yield (
                    f"{stage} {_LABELS.get(label, label)} took {one['tokens']:,} tokens in "
                    f"{one['packs']:,} packs of {one['budget']:,}, {one['seconds']} s"
                )
    if done := _finished(run, "train"):
        peak, steps = done.facts.get("peak_gib", 0.0), done.facts.get("steps", 0)
        told = f", at most {peak} GiB of the GPU" if peak else ""
        if spent := done.facts.get("spent"):
            told = f": {spent['tokens']:,} tokens in {spent['seconds']:,.0f} s of it{told}"
        yield f"train took {steps} steps and {done.seconds:,.0f} s, scoring included{told}"


def _seen(run: Run, gpus: str) -> Iterator[MeasuredSpeed]:
    """Yield the speeds at which any run saw this base embed on a machine like this one."""
    wanted = _same(run.config.encoder.model_dump(mode="json"))
    for path in run.workspace.finished():
        found = manifests.read(path.parent)
        # A rehearsal's or a kernel's speed is not of this process, nor its encoder in the manifest.
        if found is None or not found.facts.keys() & {"took", "spent"}:
            continue
        if not _is_here(found, gpus):
            continue
        if _same(_computed(found)) == wanted and found.facts["speed"]["processes"] == 1:
            yield from _speeds(found, path)
            yield from _paces(run, found)


def _computed(found: Manifest) -> dict[str, Any]:
    """Return how a stage's encoder ran: of mining in the bits that mining has."""
    bits = found.config.get("mining", {}).get("quantize") if found.stage == "mine" else ""
    encoder: dict[str, Any] = found.config["encoder"]
    return {**encoder, "quantize": bits} if bits else encoder


def _speeds(found: Manifest, path: Path) -> Iterator[MeasuredSpeed]:
    bare = found.stage == "mine" and "round-0" in path.parts
    for one in found.facts.get("took", {}).values():
        if one["tokens"]:
            kind: Kind = "base" if bare else "adapter"
            yield MeasuredSpeed(found.stage, kind, one["tokens"], one["packs"], one["seconds"])


def _paces(run: Run, found: Manifest) -> Iterator[MeasuredSpeed]:
    """Yield the speed of a training that went about it as this run's will."""
    one = found.facts.get("spent")
    if one and _way(found.config["training"]) == _way(run.config.training.model_dump()):
        yield MeasuredSpeed("train", "train", one["tokens"], found.facts["steps"], one["seconds"])


def _is_here(found: Manifest, gpus: str) -> bool:
    now = {"cpus": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS", "")}
    same = all(found.environment.get(name) == value for name, value in now.items())
    return same and found.facts["speed"]["gpu"] == gpus


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def _ram() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
