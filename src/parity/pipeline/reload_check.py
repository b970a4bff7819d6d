"""Check that a saved adapter is the trained one: reload it in a new process and compare.

Training saves the probe embeddings of the model in memory with each epoch. A new Python process
loads base model and adapter from disk, as any later stage does, and embeds the same texts. The
vectors must be equal, and must differ from those of the base model; otherwise the adapter was not
applied.
"""

import os
import sys
from pathlib import Path

import numpy as np

from parity.pipeline import dataset, encoder_loading
from parity.retrieval.encoder import Encoder
from parity.retrieval.models import adapter as adapters
from parity.retrieval.retrieve import render_queries
from parity.retrieval.search import Embeddings
from parity.run import subprocesses
from parity.run.errors import Mismatch
from parity.run.experiment import Run

_FP32, _HALF = 1e-5, 2e-2  # largest difference of a component of unit vectors, same code and device
_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def check_reload(run: Run, folder: Path, epochs: list[int], precision: str) -> dict[str, float]:
    """Reload every epoch's adapter in a new process; return epoch → largest difference.

    Args:
        run: run, with its round.
        folder: folder of the stage `train`.
        epochs: numbers of the finished epochs.
        precision: compute dtype, such as `torch.float32`, which sets the tolerance.

    Raises:
        Mismatch: a reloaded adapter gives other probe embeddings, or those of the base model.
    """
    # With the process id: a process that outlived its killed parent must not write to this file.
    target = folder / f".reloaded-{os.getpid()}.npz"
    words = [sys.executable, "-m", "parity", "reload", str(run.file), f"--round={run.round}"]
    words += [f"--set={value}" for value in run.config.overrides]
    environment = {name: value for name, value in os.environ.items() if name not in _RANKS}
    outcome = subprocesses.run_with_progress([*words, f"--out={target}"], env=environment)
    if outcome.code:
        raise Mismatch(f"the saved adapter cannot be loaded in a new process: {outcome.last}")
    with np.load(target) as archive:
        vectors = {name: archive[name] for name in archive.files}
    target.unlink()
    tolerance = _FP32 if precision == "torch.float32" else _HALF
    largest = {}
    for number in epochs:
        memory, reloaded = np.load(folder / f"probe-{number}.npy"), vectors[f"epoch-{number}"]
        difference = float(np.abs(memory - reloaded).max())
        change = float(np.abs(reloaded - vectors["base"]).max())
        _compare(number, difference, change, tolerance)
        largest[f"epoch-{number}"] = difference
    print("round trip: adapters reloaded in a new process give the probe embeddings of training")
    return largest


def _compare(number: int, difference: float, change: float, tolerance: float) -> None:
    if not difference <= tolerance:  # NaN is never within it
        raise Mismatch(
            f"epoch {number}: the probe embeddings of the reloaded adapter differ from those in "
            f"memory by {difference:.2g} (tolerance {tolerance:g}), so the saved adapter is not "
            "the trained one"
        )
    if not change > max(10 * difference, 1e-7):
        raise Mismatch(
            f"epoch {number}: the probe embeddings with the adapter are those of the base model, "
            "so the adapter was not trained or not loaded"
        )


def reload(run: Run, target: Path) -> None:
    """Embed the probe with the base model and each epoch's adapter; write them to `target`."""
    data = dataset.load(run.config, run.workspace)
    config = run.config
    examples = dataset.shown(data, config.prompt, data.probe)
    folder = run.workspace.stage("train", run.round)
    embeddings: dict[str, Embeddings] = {}
    records = sorted(folder.glob("epoch-*/" + adapters.RECORD))
    base = encoder_loading.load_base(run.config.encoder, run.workspace)
    for adapter_folder in [None, *(path.parent for path in records)]:
        encoder = Encoder(base, config.encoder, adapter=adapter_folder)
        rendered = render_queries(encoder, config.prompt, data.probe, examples)
        embeddings[adapter_folder.name if adapter_folder else "base"] = encoder.embed(
            rendered.tokens
        )
    with target.open("wb") as handle:
        np.savez(handle, **embeddings)
