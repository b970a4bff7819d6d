"""Prove that a saved adapter is the one that was trained: reload it in a fresh process and compare.

What was in memory left its probe embeddings beside each epoch; a new Python loads base and adapter
from disk as any later stage would, embeds the same texts, and must get the same vectors. The bare
base must not: an adapter that changes nothing was not applied.
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

_FP32, _HALF = 1e-5, 2e-2  # largest difference of a component: same code, same device, unit vectors
_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def check_reload(run: Run, folder: Path, epochs: list[int], precision: str) -> dict[str, float]:
    """Reload every epoch's adapter in a fresh process; return the largest differences seen.

    Args:
        run: the run at its round.
        folder: of the stage `train`.
        epochs: numbers of the finished epochs.
        precision: the compute dtype, which sets what may differ.

    Raises:
        Mismatch: a reloaded adapter embeds the probe otherwise, or as the bare base does.
    """
    # Named by process: one that outlived its killed parent must not write into ours.
    target = folder / f".reloaded-{os.getpid()}.npz"
    words = [sys.executable, "-m", "parity", "reload", str(run.file), f"--round={run.round}"]
    words += [f"--set={value}" for value in run.config.overrides]
    alone = {name: value for name, value in os.environ.items() if name not in _RANKS}
    ended = subprocesses.run_with_progress([*words, f"--out={target}"], env=alone)
    if ended.code:
        raise Mismatch(f"the saved adapter cannot be loaded in a fresh process: {ended.last}")
    with np.load(target) as found:
        vectors = {name: found[name] for name in found.files}
    target.unlink()
    allowed = _FP32 if precision == "torch.float32" else _HALF
    largest = {}
    for number in epochs:
        memory, reloaded = np.load(folder / f"probe-{number}.npy"), vectors[f"epoch-{number}"]
        off = float(np.abs(memory - reloaded).max())
        change = float(np.abs(reloaded - vectors["base"]).max())
        _judge(number, off, change, allowed)
        largest[f"epoch-{number}"] = off
    print("round trip: adapters reloaded in a fresh process embed the probe as in memory")
    return largest


def _judge(number: int, off: float, change: float, allowed: float) -> None:
    if off > allowed:
        raise Mismatch(
            f"epoch {number}: the probe embeddings of the reloaded adapter differ from those in "
            f"memory by {off:.2g} (allowed {allowed:g}); what was saved is not what was trained"
        )
    if change <= max(10 * off, 1e-7):
        raise Mismatch(
            f"epoch {number}: with the adapter the probe embeddings are those of the bare base; "
            "nothing was trained, or nothing was loaded"
        )


def reload(run: Run, target: Path) -> None:
    """Embed the probe with the bare base and with every epoch's adapter; write them to `target`."""
    known = dataset.load(run)
    config = run.config
    shown = dataset.shown(known, config.prompt, known.probe)
    folder = run.workspace.stage("train", run.round)
    found: dict[str, Embeddings] = {}
    adapters_there = sorted(folder.glob("epoch-*/" + adapters.RECORD))
    base = encoder_loading.base(run)
    for place in [None, *(path.parent for path in adapters_there)]:
        encoder = Encoder(base, config.encoder, adapter=place)
        asked = render_queries(encoder, config.prompt, known.probe, shown)
        found[place.name if place else "base"] = encoder.embed(asked.tokens)
    with target.open("wb") as handle:
        np.savez(handle, **found)
