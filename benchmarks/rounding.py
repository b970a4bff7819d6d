"""`python -m benchmarks.rounding RUN`: what fewer bits change in the rankings of a trained adapter.

The valid rows are ranked once for each way of computing, and compared with the first way.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    os.environ.update(TQDM_DISABLE="1", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    os.environ["JAX_PLATFORMS"] = "cpu"  # bm25s starts jax where there is one

from benchmarks.rounded import Answers, Changed, changed, told
from parity.pipeline import dataset, encoder_loading, evaluation
from parity.pipeline.stage_cores.evaluate import BASE
from parity.retrieval.retrieve import index, retrieve
from parity.run.errors import BadConfig, ParityError
from parity.run.experiment import Run, open_run

WAYS = {
    "fp32": ("encoder.precision=fp32",),
    "bf16": ("encoder.precision=bf16",),
    "fp8": ("encoder.precision=bf16", "encoder.quantize=fp8"),
    "4bit": ("encoder.precision=bf16", "encoder.quantize=4bit"),
}
"""Name → overrides."""


def compare(
    file: Path, sets: tuple[str, ...], label: str, ways: Sequence[str]
) -> dict[str, Changed]:
    """Return what each way but the first changes against the first.

    Args:
        file: the run file.
        sets: all overrides.
        label: `base`, or a folder of the run's training such as `epoch-3`.
        ways: names, see `WAYS`.

    Raises:
        BadConfig: there is no such adapter, or the split holds nothing out.
    """
    known = dataset.load(open_run(file, sets))
    evaluation.need_valid(known)
    found = {way: _answers(open_run(file, (*sets, *WAYS[way])), label) for way in ways}
    first = found.pop(ways[0])
    return {
        way: changed(first, other, known.valid_qrels, len(known.corpus))
        for way, other in found.items()
    }


def _answers(run: Run, label: str) -> Answers:
    adapter = None if label == BASE else run.workspace.stage("train", run.round) / label
    if adapter is not None and not adapter.is_dir():
        raise BadConfig(f"--adapter {label}: the training of round {run.round} has no such folder")
    known, prompt = dataset.load(run), run.config.prompt
    encoder = encoder_loading.encoder(run, adapter)
    passages = index(encoder, prompt, known.corpus)
    shown = dataset.shown(known, prompt, known.valid)
    found = retrieve(encoder, prompt, known.valid, passages, shown, k=evaluation.K)
    return found.vectors, found.ranking


def main(words: Sequence[str]) -> int:
    """Run the command line; return its exit code."""
    made = argparse.ArgumentParser(prog="benchmarks.rounding", description=__doc__)
    made.add_argument("run", type=Path)
    made.add_argument("--adapter", default=BASE, help="base, or a folder such as epoch-3")
    made.add_argument("--ways", default="fp32,bf16,fp8", help=f"of {', '.join(WAYS)}")
    made.add_argument("--set", dest="sets", action="append", default=[])
    asked = made.parse_args(words)
    ways = [part for part in asked.ways.split(",") if part]
    try:
        if len(ways) < 2 or not set(ways) <= set(WAYS):
            raise BadConfig(f"--ways {asked.ways}: want two or more of {', '.join(WAYS)}")
        found = compare(asked.run, tuple(asked.sets), asked.adapter, ways)
    except ParityError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    for way, one in found.items():
        print(f"{ways[0]} → {way}: {told(one)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
