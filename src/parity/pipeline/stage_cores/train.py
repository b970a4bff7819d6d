"""3. Negatives → an adapter for each epoch, scored, the best one chosen."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file

from parity.competition.lineage import Lineage
from parity.pipeline import dag, dataset, encoder_loading, epochs, reload_check, training_plan
from parity.pipeline.command_cores import local_plan
from parity.pipeline.epochs import SavedEpoch
from parity.pipeline.stage import StageContext, stage_context
from parity.retrieval.encoder import Encoder
from parity.retrieval.engine.distributed import ProcessGroup, launched
from parity.retrieval.models import adapter as adapters
from parity.run import digest, files
from parity.run.errors import BadConfig, Mismatch
from parity.run.experiment import Run
from parity.run.progress import folded
from parity.training import negatives, trainer
from parity.training.checkpoint import CheckpointState
from parity.training.tracking import open_tracker

_CHECKPOINTS = "checkpoints"
_KEY = "training.json"


def train(run: Run) -> None:
    """Train from the base or the round's parent, going on from a checkpoint where there is one.

    Raises:
        BadConfig: the layers are such that nothing can be learnt through them.
        StaleInput: negatives are missing or stale.
        Mismatch: the saved adapter, reloaded in a fresh process, is not the one in memory.
    """
    if run.config.encoder.quantize == "fp8":
        raise BadConfig("encoder.quantize = 'fp8' is for encoding alone: train with none or 4bit")
    workers = launched()
    if dag.StageGraph().standing(run, "train").state != "done":
        _train(run, workers)
    elif workers.main:
        print(f"{dag.label_of('train', run)} is done; another seed or setting trains anew")
    if workers.main:  # only now that the manifest is there are the checkpoints of no more use
        files.remove(run.workspace.stage("train", run.round) / _CHECKPOINTS)
    workers.wait()


def _train(run: Run, workers: ProcessGroup) -> None:
    with stage_context(run, "train", main=workers.main) as work:
        _learn(run, workers, work)
        if workers.main:
            # By now the model is gone from memory, so that the fresh process has room for its own.
            _choose(run, work)


def _learn(run: Run, workers: ProcessGroup, work: StageContext) -> None:
    """Train all epochs; each is saved and scored when its steps are done."""
    config = run.config
    known = dataset.load(run)
    encoder = _start(run, workers)
    mined = negatives.read(dag.folder(run, "mine") / "negatives.jsonl")
    key = _key(run, work, encoder)

    def say(line: str) -> None:
        if workers.main:
            print(line, flush=True)

    if workers.main:
        _make_room(work.folder, key)
    workers.wait()
    planned, lines = training_plan.build_training_plan(encoder, config, known, mined, key)
    lineage = _lineage(run, known.split.train)
    say("\n".join([f"trains {_counted(encoder)}", *map(folded, lines)]))

    def after_epoch(number: int, state: CheckpointState) -> None:
        done = epochs.read(work.folder, number)
        if done is None:
            _need_its_weights(
                number,
                state,
                planned.ends(config.training.gradient_accumulation_steps),
                work.folder,
            )
            bare = SavedEpoch(number, state.step, None)
            done = epochs.save(encoder, config, known, work.folder, epoch=bare, lineage=lineage)
        say(done.line)

    log, close = open_tracker(
        config.training, work.folder / "tracker", epochs.flat(config), main=workers.main
    )
    state = trainer.fit(
        encoder,
        planned,
        config.training,
        work.folder / _CHECKPOINTS,
        trainer.Callbacks(after_epoch, log, say),
    )
    close()
    gpu = encoder.speed()["gpu"]
    work.facts = {
        "steps": state.steps,
        "losses": [round(loss, 6) for loss in state.losses],
        "course": lines,
        "threads": torch.get_num_threads(),
        "processes": workers.world,
        "precision": str(encoder.dtype),
        "token_budget": state.budget,  # less than the run says where memory ran out
        "peak_gib": _most(encoder, torch.cuda.max_memory_allocated),
        "held_gib": _most(encoder, torch.cuda.max_memory_reserved),  # what others cannot have
        "spent": asdict(state.spent),
        "speed": {"gpu": gpu, "processes": workers.world},
    }
    if workers.main:
        local_plan.note(run, gpu, "train", state.spent.node)


def _start(run: Run, workers: ProcessGroup) -> Encoder:
    """Return the encoder with trainable weights: fresh, or the parent's."""
    training = run.config.training
    encoder = encoder_loading.encoder(run, None, workers)
    if training.method == "all" and encoder.dtype != torch.float32:
        raise BadConfig("training.method = 'all' wants encoder.precision = 'fp32'")
    torch.manual_seed(training.seed)
    encoder.model = adapters.attach(encoder.model, training).to(encoder.device)
    parent = encoder_loading.parent(run)
    if parent is not None and training.init_from == "parent":
        adapters.read_record(parent)
        adapters.restore(encoder.model, load_file(adapters.weights_of(parent)), str(parent))
    if training.gradient_checkpointing:
        encoder.model.gradient_checkpointing_enable({"use_reentrant": False})
    return encoder


def _key(run: Run, work: StageContext, encoder: Encoder) -> str:
    """Return the digest of all that decides weights and scores; another key is another training."""
    made_from = dag.inputs(work.found)
    sections = dag.config_of(run, "train")
    del sections["overrides"]
    for name in ("tracker", "checkpoint_every"):
        del sections["training"][name]
    return digest.of_value([made_from, sections, encoder.digest(), encoder.workers.world])


def _make_room(folder: Path, key: str) -> None:
    """Set another training's epochs aside: what was trained is never overwritten."""
    record = folder / _KEY
    before = files.read_json(record)["key"] if record.is_file() else key
    if before != key:
        aside = folder.with_name(f"{folder.name}-{before[:8]}")
        files.remove(aside)  # the same training, set aside before
        folder.rename(aside)
        print(f"another training's epochs are kept in {aside.name}")
    files.write_json(record, {"key": key})


def _need_its_weights(number: int, state: CheckpointState, ends: list[int], folder: Path) -> None:
    """Check that training stands where this epoch ends, so that it is its weights that are saved.

    Raises:
        Mismatch: it has gone on; what is left of the epoch is not whole.
    """
    if state.step > ends[number - 1]:
        raise Mismatch(
            f"epoch {number} was changed or lost after training had gone on to step {state.step}; "
            f"remove {folder / _CHECKPOINTS} to train it again"
        )


def _lineage(run: Run, train: tuple[int, ...]) -> Lineage:
    parent = encoder_loading.parent(run)
    mine = Lineage(frozenset(train))
    if parent is None or run.config.training.init_from == "base":
        return mine
    return mine.union(Lineage.read(parent / "lineage.json"))


def _choose(run: Run, work: StageContext) -> None:
    """Copy the best epoch to `adapter`, after proving that what was saved is what was trained."""
    known = dataset.load(run)
    done: list[SavedEpoch] = []
    while epoch := epochs.read(work.folder, len(done) + 1):
        done.append(epoch)
    best = max(done, key=lambda item: (item.value, -item.number))
    work.facts["round_trip"] = reload_check.check_reload(
        run, work.folder, [one.number for one in done], work.facts["precision"]
    )
    chosen = work.folder / f"epoch-{best.number}"
    with files.replacing(run.workspace.adapter(run.round)) as temporary:
        shutil.copytree(chosen, temporary)
    for one in done:
        work.outputs += epochs.outputs(work.folder, one.number)
    work.outputs += [f"adapter/{path.name}" for path in sorted(chosen.iterdir())]
    work.facts["best_epoch"] = best.number
    print(epochs.verdict(work.folder, run.config, known, best, done[-1]))


def _counted(encoder: Encoder) -> str:
    weights = list(encoder.model.parameters())
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    return f"{trained:,} of {sum(weight.numel() for weight in weights):,} weights"


def _most(encoder: Encoder, of: Callable[[torch.device], int]) -> float:
    """Return the most device memory that a counter saw, in GiB; 0 on a CPU."""
    return round(of(encoder.device) / 2**30, 2) if encoder.device.type == "cuda" else 0.0
