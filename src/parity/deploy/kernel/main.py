"""What runs on Kaggle: `python -m parity.deploy.kernel.main KAGGLE BUNDLE WHEELHOUSE BASE STARTED`.

Its script, `kaggle/kernel.py`, has found and proven the folders and started a process for each GPU,
or one where the model itself is split over them. What can fail comes before the hours of ranking;
one process writes, and `run_report.json` last: whoever finds it finds everything.
"""

import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parity.competition import few_shot
from parity.competition.eedi import kaggle_files, submission
from parity.competition.eedi.kaggle_files import Competition
from parity.competition.few_shot import Example
from parity.competition.query import Query
from parity.deploy.bundle import bundle, sealed_folder
from parity.deploy.bundle.bundle import Bundle
from parity.deploy.kernel import environment_check, fingerprint, run_report
from parity.retrieval.encoder import Encoder
from parity.retrieval.engine import device
from parity.retrieval.engine.distributed import ProcessGroup, launched
from parity.retrieval.models import base_model
from parity.retrieval.probe_measurement import ProbeResult, measure
from parity.retrieval.retrieve import Index, Retrieval, index, retrieve
from parity.run.errors import ParityError

_TOLD = {"run_type": "KAGGLE_KERNEL_RUN_TYPE", "rerun": "KAGGLE_IS_COMPETITION_RERUN"}


@dataclass(frozen=True, slots=True)
class AttachedDatasets:
    """What the script has found, every file of it proven.

    Attributes:
        kaggle: /kaggle, or what stands for it.
        bundle: folder of the bundle.
        wheelhouse: folder of the wheelhouse.
        base: folder of the base's weights.
        started: when the script was started, seconds since 1970.
    """

    kaggle: Path
    bundle: Path
    wheelhouse: Path
    base: Path
    started: float


@dataclass(slots=True)
class _Laps:
    """Seconds by phase; the first counts from when the script was started."""

    last: float
    seconds: dict[str, float] = field(default_factory=dict)

    def end(self, phase: str) -> None:
        now = time.time()
        self.seconds[phase] = round(now - self.last, 2)
        self.last = now


@dataclass(frozen=True, slots=True)
class _Mounted:
    """The competition as it is attached, and what the bundle names of it."""

    read: Competition
    pool: tuple[Example, ...]
    probe: list[Query]


def main(words: Sequence[str]) -> int:
    """Do the kernel's work; return its exit code.

    Args:
        words: the folders of `Attached`, in order, and when the script was started.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it looks for a hub, and says so
    kaggle, packed, house, base = map(Path, words[:4])
    try:
        run(AttachedDatasets(kaggle, packed, house, base, float(words[4])))
    except ParityError as error:
        if os.environ.get("RANK", "0") == "0":  # of several processes one talks
            print("error:", " ".join(str(error).split()), file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def run(attached: AttachedDatasets) -> None:
    """Check everything, rank probe and test, and write what there is to write.

    Raises:
        ParityError: something is not what the bundle was made for; nothing was written.
    """
    laps = _Laps(attached.started)
    shipped = bundle.read(attached.bundle)
    facts = {
        "image": environment_check.image(shipped.facts.get("image", {})),
        "vendored": environment_check.vendored(
            sealed_folder.read(attached.wheelhouse).facts["install"]
        ),
        "wheelhouse": shipped.facts["wheelhouse"],
        "kaggle": {name: os.environ.get(variable, "") for name, variable in _TOLD.items()},
    }
    mounted = _mounted(attached, shipped)
    laps.end("start")
    workers = launched()
    encoder = _encoder(attached, shipped, workers)
    laps.end("load")
    passages = index(encoder, shipped.config.prompt, mounted.read.corpus)
    laps.end("corpus")
    probed, layers, seen = _probe(shipped, mounted, encoder, passages)
    laps.end("probe")
    found = _test(shipped, mounted, encoder, passages)
    laps.end("test")
    facts |= {
        "seconds": laps.seconds,
        "memory": device.peak(workers, encoder.device),
        "gpus": device.gpus(),
        "dtype": str(encoder.dtype).removeprefix("torch."),
        "speed": encoder.speed(),
        "seen": seen,
    }
    if workers.main:
        _write(attached.kaggle / "working", shipped, mounted, found, (probed, layers), facts)
    workers.leave()


def _mounted(attached: AttachedDatasets, shipped: Bundle) -> _Mounted:
    read = kaggle_files.read(bundle.competition(attached.kaggle / "input"))
    pool = few_shot.read(shipped.folder / "examples.jsonl", read.queries, read.corpus)
    return _Mounted(read, pool, run_report.probe(shipped, read.queries))


def _encoder(attached: AttachedDatasets, shipped: Bundle, workers: ProcessGroup) -> Encoder:
    config = shipped.config.encoder
    told: dict[str, Any] = {"parallelism": shipped.facts.get("parallelism", "queries")}
    if config.precision == "bf16" and device.lacks_bf16():
        told["precision"] = "fp16"  # Kaggle's T4; the layer `precision` names the difference
    config = config.model_copy(update=told)
    base = base_model.recorded(shipped.folder / "base.json", attached.base)
    return Encoder(base, config, adapter=shipped.folder, workers=workers)


def _probe(
    shipped: Bundle, mounted: _Mounted, encoder: Encoder, passages: Index
) -> tuple[ProbeResult, dict[str, str], dict[str, Any]]:
    """Rank the probe; return every layer that was measured, the pinned ones proven, and facts."""
    prompt = shipped.config.prompt
    shown = few_shot.shown(mounted.probe, mounted.pool, prompt)
    probed = measure(encoder, prompt, mounted.probe, passages, shown)
    layers = {**probed.layers, "data": run_report.data(mounted.read)}
    pinned = {**layers, **run_report.mounted(mounted.read.corpus, mounted.pool)}
    found = probed.found
    run_report.prove(shipped, pinned, found.asked.texts)
    asked = fingerprint.ProbeTexts(
        found.ranking.query_ids,
        found.asked.texts,
        found.asked.tokens,
        shown,
        found.vectors,
        passages.vectors,
    )
    budget = shipped.config.encoder.token_budget
    seen = fingerprint.environment_fingerprint(
        prompt, mounted.read.corpus, asked, encoder.speed(), budget
    )
    return probed, layers, seen


def _test(shipped: Bundle, mounted: _Mounted, encoder: Encoder, passages: Index) -> Retrieval:
    prompt, asked = shipped.config.prompt, mounted.read.test
    shown = few_shot.shown(asked, mounted.pool, prompt)
    return retrieve(encoder, prompt, asked, passages, shown, k=submission.K)


def _write(
    working: Path,
    shipped: Bundle,
    mounted: _Mounted,
    found: Retrieval,
    probe: tuple[ProbeResult, dict[str, str]],
    facts: dict[str, Any],
) -> None:
    (probed, layers), read = probe, mounted.read
    sha256 = submission.write(working / submission.NAME, found.ranking, read.sample, read.corpus)
    rows = len(read.sample)
    run_report.write(
        working,
        shipped,
        {**layers, "submission": sha256},
        ranking=probed.found.ranking,
        vectors=probed.found.vectors,
        facts={**facts, "submission": {"sha256": sha256, "rows": rows}},
    )
    print(f"{rows} rows, submission {sha256[:12]}, bundle {shipped.digest[:12]}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
