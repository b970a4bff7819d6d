"""3. Negatives → an adapter for each epoch, scored, the best one chosen."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from parity.competition import ranking as rankings
from parity.competition.lineage import Lineage
from parity.competition.query import UnitId
from parity.competition.ranking import Ranking
from parity.pipeline import (
    dag,
    dataset,
    encoder_loading,
    epochs,
    evaluation,
    model_reference,
    reload_check,
    token_memory,
    training_plan,
)
from parity.pipeline.dataset import Dataset
from parity.pipeline.epochs import SavedEpoch
from parity.pipeline.stage import StageContext, stage_context
from parity.retrieval.encoder import Encoder
from parity.retrieval.engine.distributed import ProcessGroup, current_group
from parity.retrieval.models import adapter as adapters
from parity.run import digest, files
from parity.run.config import stage_settings
from parity.run.config.training import TrainingConfig
from parity.run.errors import BadConfig, Contaminated, Mismatch
from parity.run.experiment import Run
from parity.run.progress import log, wrap
from parity.training import negatives, trainer
from parity.training.checkpoint import CheckpointState
from parity.training.tracking import open_tracker

_CHECKPOINTS = "checkpoints"
_KEY = "training.json"


def train(run: Run) -> None:
    """Train from the base model or the round's parent, and resume from a checkpoint.

    Raises:
        BadConfig: layers in this precision cannot be trained.
        StaleInput: negatives are missing or stale.
        Mismatch: the saved adapter, reloaded in a new process, differs from the one in memory.
    """
    if run.config.encoder.quantize == "fp8":
        raise BadConfig("encoder.quantize = 'fp8' is for encoding only. Train with none or 4bit")
    workers = current_group()
    if dag.StageGraph().standing(run, "train").state != "done":
        with stage_context(run, "train", main=workers.is_main) as work:
            _learn(run, workers, work)
            if workers.is_main:
                # The model has left memory, so the new process has room for its own.
                _choose(run, work)
    elif workers.is_main:
        print(f"{dag.label_of('train', run)} is done; change the seed or a setting to train again")
    if workers.is_main:  # the manifest exists, so the checkpoints are not needed any more
        files.remove(run.workspace.stage("train", run.round) / _CHECKPOINTS)
    workers.wait()


def _learn(run: Run, workers: ProcessGroup, work: StageContext) -> None:
    """Train all epochs, and save and score each at its end."""
    config, paths = run.config, run.workspace
    data = dataset.load(config, paths)
    parent = work.model.folder if work.model else None
    encoder = _start(
        encoder_loading.load_encoder(config.encoder, paths, None, workers), config.training, parent
    )
    mined = negatives.read(dag.folder(run, "mine") / "negatives.jsonl", data.corpus)
    key, lineage = _key(run, work.inputs, encoder), _lineage(parent, data.split.train)

    def say(line: str) -> None:
        if workers.is_main:
            print(line, flush=True)

    if workers.is_main:
        _make_room(work, key)
    workers.wait()
    planned, lines = training_plan.build_training_plan(
        encoder, stage_settings.training_config(config), data, mined, key
    )
    scored, scored_line = _scored_rows(data, lineage)
    say("\n".join([f"trains {_counted(encoder)}", *map(wrap, [*lines, *scored_line])]))

    def after_epoch(number: int, state: CheckpointState) -> None:
        done = epochs.read(work.folder, number)
        if done is None:
            _need_its_weights(
                number,
                state,
                planned.ends(config.training.gradient_accumulation_steps),
                work.folder,
            )
            unscored = SavedEpoch(number, state.step, None)
            done = epochs.save(
                encoder, config, scored, work.folder, epoch=unscored, lineage=lineage
            )
        say(done.line)

    log, close = open_tracker(
        config.training, work.folder / "tracker", epochs.flat(config), main=workers.is_main
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
        "processes": workers.world_size,
        "precision": str(encoder.dtype),
        "token_budget": state.budget,  # less than in the run file if memory ran out
        "peak_gib": _most(encoder, torch.cuda.max_memory_allocated),
        "held_gib": _most(
            encoder, torch.cuda.max_memory_reserved
        ),  # not available to other processes
        "spent": asdict(state.spent),
        "scored_with": stage_settings.settings_digest(config),
        "speed": {"gpu": gpu, "processes": workers.world_size},
    }
    if workers.is_main:
        token_memory.log_memory(
            paths.bytes_per_token, config, gpu, "train", state.spent.token_bytes
        )


def _start(encoder: Encoder, training: TrainingConfig, parent: Path | None) -> Encoder:
    """Return the encoder with trainable weights: new ones or the parent's."""
    if training.method == "all" and encoder.dtype != torch.float32:
        raise BadConfig("training.method = 'all' requires encoder.precision = 'fp32'")
    for line in adapters.describe_untrained(encoder.model, training):
        log(line)
    torch.manual_seed(training.seed)
    encoder.model = adapters.attach(encoder.model, training).to(encoder.device)
    if parent is not None:
        adapters.read_record(parent)
        adapters.restore(encoder.model, load_file(adapters.weights_path(parent)), str(parent))
    if training.gradient_checkpointing:
        encoder.model.gradient_checkpointing_enable({"use_reentrant": False})
    return encoder


def _key(run: Run, inputs: dict[str, str], encoder: Encoder) -> str:
    """Return the digest of everything that determines weights and scores."""
    sections = dag.config_of(run, "train")
    del sections["overrides"]
    scored_with = stage_settings.settings_digest(run.config)
    for name in ("tracker", "checkpoint_every"):
        del sections["training"][name]
    return digest.of_value(
        [inputs, sections, scored_with, encoder.digest(), encoder.workers.world_size]
    )


def _make_room(work: StageContext, key: str) -> None:
    """Move another training's epochs to another folder, so that they are not overwritten."""
    work.begin()
    folder, record = work.folder, work.folder / _KEY
    before = files.read_json(record)["key"] if record.is_file() else key
    if before != key:
        aside = folder.with_name(f"{folder.name}-{before[:8]}")
        files.remove(aside)  # the same training, moved before
        folder.rename(aside)
        print(f"another training's epochs are kept in {aside.name}")
    files.write_json(record, {"key": key})


def _need_its_weights(number: int, state: CheckpointState, ends: list[int], folder: Path) -> None:
    """Check that training is at the end of this epoch, so that its weights can be saved.

    Raises:
        Mismatch: training is past the end, and the saved epoch is incomplete.
    """
    if state.step > ends[number - 1]:
        raise Mismatch(
            f"epoch {number} was changed or lost after training reached step {state.step}. "
            f"Remove {folder / _CHECKPOINTS} to train it again"
        )


def _lineage(parent: Path | None, train: tuple[UnitId, ...]) -> Lineage:
    own_lineage = Lineage(frozenset(train))
    if parent is None:
        return own_lineage
    return own_lineage.union(Lineage.of_adapter(parent))


def _scored_rows(data: Dataset, lineage: Lineage) -> tuple[Dataset, list[str]]:
    """Return the dataset with the validation rows that epochs are scored on, and a line if few.

    Scores on rows that the initial weights were trained on would choose the wrong epoch.
    """
    if not data.valid:
        return data, []
    try:
        rows = evaluation.clean_rows(data, lineage, accept_contaminated=False)
    except Contaminated as error:
        reason = str(error).partition("; --")[0]
        split = replace(data.split, valid=(), unseen=frozenset())
        return replace(data, split=split), [f"epochs are not scored, the last is used: {reason}"]
    return rows.data, [f"epochs are scored on {rows.line}"] if rows.line else []


def _choose(run: Run, work: StageContext) -> None:
    """Check that the saved epochs equal the trained ones, and copy the best to `adapter`."""
    lineage = Lineage.of_adapter(work.folder / "epoch-1")
    data, _ = _scored_rows(dataset.load(run.config, run.workspace), lineage)
    done: list[SavedEpoch] = []
    while epoch := epochs.read(work.folder, len(done) + 1):
        done.append(epoch)
    best = max(done, key=lambda item: (item.value, -item.number))
    work.facts["round_trip"] = reload_check.check_reload(
        run, work.folder, [saved.number for saved in done], work.facts["precision"]
    )
    chosen = work.folder / f"epoch-{best.number}"
    with files.replacing(run.workspace.adapter(run.round)) as temporary:
        shutil.copytree(chosen, temporary)
    for saved in done:
        work.outputs += epochs.outputs(work.folder, saved.number)
    work.outputs += [f"adapter/{path.name}" for path in sorted(chosen.iterdir())]
    work.facts["best_epoch"] = best.number
    print(epochs.describe_best(work.folder, run.config, data, best, done[-1]))
    base = _base_ranking(run)
    if base is not None and set(base.query_ids) == set(data.valid_qrels):
        loss = epochs.describe_loss(work.folder, run.config, data, done, best, base)
        print(wrap(loss or "on unseen labels it is not below the base model"))


def _base_ranking(run: Run) -> Ranking | None:
    """Return the base model's current ranking of the validation set; None if it has no score."""
    first = run.at(0)
    model = model_reference.resolve(model_reference.BASE, first)
    if dag.StageGraph().evaluation(first, model).state != "done":
        return None
    return rankings.read(dag.evaluation_folder(first, model) / "ranking.jsonl")


def _counted(encoder: Encoder) -> str:
    weights = list(encoder.model.parameters())
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    return f"{trained:,} of {sum(weight.numel() for weight in weights):,} weights"


def _most(encoder: Encoder, of: Callable[[torch.device], int]) -> float:
    """Return a peak of device memory in GiB; 0 on a CPU."""
    return round(of(encoder.device) / 2**30, 2) if encoder.device.type == "cuda" else 0.0
