"""The kernel: `python -m parity.deploy.kernel.main KAGGLE BUNDLE WHEELHOUSE BASE STARTED`.

The script `kaggle/kernel.py` finds and verifies the folders. It starts one process for each GPU, or
one process for a model that is split over the GPUs. All checks run before the hours of ranking.
Only the main process writes, and it writes `run_report.json` last, when all other outputs exist.
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
from parity.competition.base import Competition, CompetitionData
from parity.competition.few_shot import Example
from parity.competition.kinds import competition_of
from parity.competition.query import Query
from parity.deploy.bundle import bundle, sealed_folder
from parity.deploy.bundle.bundle import Bundle
from parity.deploy.kernel import environment_check, fingerprint, run_report
from parity.retrieval.encoder import Encoder
from parity.retrieval.engine import device
from parity.retrieval.engine.distributed import ProcessGroup, current_group
from parity.retrieval.models import base_model
from parity.retrieval.probe_measurement import ProbeResult, measure
from parity.retrieval.retrieve import Index, Retrieval, index, retrieve
from parity.run.errors import ParityError

_RUN_VARIABLES = {"run_type": "KAGGLE_KERNEL_RUN_TYPE", "rerun": "KAGGLE_IS_COMPETITION_RERUN"}


@dataclass(frozen=True, slots=True)
class AttachedDatasets:
    """The folders that the script found and verified.

    Attributes:
        kaggle: /kaggle, or the folder that replaces it.
        bundle: folder of the bundle.
        wheelhouse: folder of the wheelhouse.
        base: folder of the base model's weights.
        started: start time of the script, Unix time in seconds.
    """

    kaggle: Path
    bundle: Path
    wheelhouse: Path
    base: Path
    started: float


@dataclass(slots=True)
class _Laps:
    """Seconds by phase; the first phase begins with the script."""

    last: float
    seconds: dict[str, float] = field(default_factory=dict)

    def end(self, phase: str) -> None:
        current = time.time()
        self.seconds[phase] = round(current - self.last, 2)
        self.last = current


@dataclass(frozen=True, slots=True)
class _Mounted:
    """The attached competition, and its rows that the bundle names."""

    competition: Competition
    read: CompetitionData
    pool: tuple[Example, ...]
    probe: list[Query]

    @property
    def k(self) -> int:
        """Return the number of passages in a submission row."""
        return self.competition.metric.within(len(self.read.corpus)).k


def main(words: Sequence[str]) -> int:
    """Run the kernel and return its exit code.

    Args:
        words: folders of `AttachedDatasets`, in order, and the start time.
    """
    logging.getLogger("bitsandbytes").setLevel(
        logging.ERROR
    )  # it warns that it can't reach the hub
    kaggle, packed, house, base = map(Path, words[:4])
    try:
        run(AttachedDatasets(kaggle, packed, house, base, float(words[4])))
    except ParityError as error:
        if os.environ.get("RANK", "0") == "0":  # only the first process prints
            print("error:", " ".join(str(error).split()), file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def run(attached: AttachedDatasets) -> None:
    """Check the inputs, rank probe and test, and write the outputs.

    Raises:
        ParityError: an input is not the one the bundle was built for; nothing was written.
    """
    laps = _Laps(attached.started)
    shipped = bundle.read(attached.bundle)
    facts = {
        "image": environment_check.image(shipped.facts.get("image", {})),
        "vendored": environment_check.vendored(
            sealed_folder.read(attached.wheelhouse).facts["install"]
        ),
        "wheelhouse": shipped.facts["wheelhouse"],
        "kaggle": {name: os.environ.get(variable, "") for name, variable in _RUN_VARIABLES.items()},
    }
    mounted = _mounted(attached, shipped)
    laps.end("start")
    workers = current_group()
    encoder = _encoder(attached, shipped, workers)
    laps.end("load")
    passages = index(encoder, shipped.config.prompt, mounted.read.corpus)
    laps.end("corpus")
    probed, layers, seen = _probe(shipped, mounted, encoder, passages)
    laps.end("probe")
    retrieval = _test(shipped, mounted, encoder, passages)
    laps.end("test")
    facts |= {
        "seconds": laps.seconds,
        "memory": device.peak_memory(workers, encoder.device),
        "gpus": device.list_gpus(),
        "dtype": str(encoder.dtype).removeprefix("torch."),
        "speed": encoder.speed(),
        "seen": seen,
    }
    if workers.is_main:
        _write(attached.kaggle / "working", shipped, mounted, retrieval, (probed, layers), facts)
    workers.destroy()


def _mounted(attached: AttachedDatasets, shipped: Bundle) -> _Mounted:
    competition = competition_of(shipped.config.competition)
    read = competition.read(competition.folder(attached.kaggle / "input"))
    pool = few_shot.read(shipped.folder / "examples.jsonl", read.queries, read.corpus)
    return _Mounted(competition, read, pool, run_report.probe(shipped, read.queries))


def _encoder(attached: AttachedDatasets, shipped: Bundle, workers: ProcessGroup) -> Encoder:
    config = shipped.config.encoder
    updates: dict[str, Any] = {"parallelism": shipped.facts.get("parallelism", "queries")}
    if config.precision == "bf16" and device.emulates_bf16():
        updates["precision"] = "fp16"  # Kaggle's T4; the layer `precision` names the difference
    config = config.model_copy(update=updates)
    base = base_model.read_record(shipped.folder / "base.json", attached.base)
    # A bundle of the base model has no adapter; its manifest, which is verified, says which it is.
    adapter = shipped.folder if shipped.layers["adapter"] else None
    return Encoder(base, config, adapter=adapter, workers=workers)


def _probe(
    shipped: Bundle, mounted: _Mounted, encoder: Encoder, passages: Index
) -> tuple[ProbeResult, dict[str, str], dict[str, Any]]:
    """Rank the probe, check the pinned layers, and return result, layers and facts."""
    prompt = shipped.config.prompt
    shown = few_shot.shown(mounted.probe, mounted.pool, prompt)
    probed = measure(encoder, prompt, mounted.probe, passages, shown, k=mounted.k)
    layers = {**probed.layers, "data": run_report.data(mounted.read)}
    pinned = {**layers, **run_report.mounted(mounted.read.corpus, mounted.pool)}
    retrieval = probed.retrieval
    run_report.prove(shipped, pinned, retrieval.queries.texts)
    probe_texts = fingerprint.ProbeTexts(
        retrieval.ranking.query_ids,
        retrieval.queries.texts,
        retrieval.queries.tokens,
        shown,
        retrieval.vectors,
        passages.vectors,
    )
    budget = shipped.config.encoder.token_budget
    seen = fingerprint.environment_fingerprint(
        prompt, mounted.read.corpus, probe_texts, encoder.speed(), budget
    )
    return probed, layers, seen


def _test(shipped: Bundle, mounted: _Mounted, encoder: Encoder, passages: Index) -> Retrieval:
    prompt, queries = shipped.config.prompt, mounted.read.test
    shown = few_shot.shown(queries, mounted.pool, prompt)
    return retrieve(encoder, prompt, queries, passages, shown, k=mounted.k)


def _write(
    working: Path,
    shipped: Bundle,
    mounted: _Mounted,
    retrieval: Retrieval,
    probe: tuple[ProbeResult, dict[str, str]],
    facts: dict[str, Any],
) -> None:
    (probed, layers), read = probe, mounted.read
    competition = mounted.competition
    path = working / competition.submission.file
    sha256 = competition.write_submission(path, retrieval.ranking, read.test, read.corpus)
    rows = len(read.test)
    run_report.write(
        working,
        shipped,
        {**layers, "submission": sha256},
        ranking=probed.retrieval.ranking,
        vectors=probed.retrieval.vectors,
        facts={**facts, "submission": {"sha256": sha256, "rows": rows}},
    )
    print(f"{rows} rows, submission {sha256[:12]}, bundle {shipped.digest[:12]}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
