"""`python -m benchmarks.rounding RUN`: compare rankings of a model by precision.

The validation rows are ranked once for each precision, and compared with the first one.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    os.environ.update(TQDM_DISABLE="1", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    os.environ["JAX_PLATFORMS"] = "cpu"  # bm25s starts jax where it is installed

from benchmarks.rounded import Answers, Changed, changed, describe
from parity.pipeline import dataset, encoder_loading, evaluation
from parity.pipeline.dag import StageGraph
from parity.pipeline.model_reference import BASE, Model
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
    file: Path, sets: tuple[str, ...], reference: str, ways: Sequence[str]
) -> dict[str, Changed]:
    """Return the differences of each way from the first one.

    Args:
        file: run file.
        sets: all overrides.
        reference: reference of the model, as `--model` of `eval`.
        ways: names, see `WAYS`.

    Raises:
        BadConfig: there is no such model, or the split has no validation set.
        StaleInput: the run is not prepared, or the model not trained.
    """
    run, graph = open_run(file, sets), StageGraph()
    graph.require(run, "eval")
    model = graph.model(run, "eval", reference)
    assert model is not None  # `eval` loads one
    data = dataset.load(run.config, run.workspace)
    evaluation.need_valid(data)
    answers_by_way = {way: _answers(open_run(file, (*sets, *WAYS[way])), model) for way in ways}
    first = answers_by_way.pop(ways[0])
    return {
        way: changed(first, other, data.valid_qrels, len(data.corpus))
        for way, other in answers_by_way.items()
    }


def _answers(run: Run, model: Model) -> Answers:
    data, prompt = dataset.load(run.config, run.workspace), run.config.prompt
    encoder = encoder_loading.load_encoder(run.config.encoder, run.workspace, model.folder)
    passages = index(encoder, prompt, data.corpus)
    shown = dataset.shown(data, prompt, data.valid)
    result = retrieve(encoder, prompt, data.valid, passages, shown, k=data.metric.k)
    return result.vectors, result.ranking


def main(words: Sequence[str]) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.rounding", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", default=BASE, help="base, best, epoch-3, round-1/best …")
    parser.add_argument("--ways", default="fp32,bf16,fp8", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--set", dest="sets", action="append", default=[])
    arguments = parser.parse_args(words)
    ways = [part for part in arguments.ways.split(",") if part]
    try:
        if len(ways) < 2 or not set(ways) <= set(WAYS):
            raise BadConfig(f"--ways {arguments.ways} must be two or more of {', '.join(WAYS)}")
        results = compare(arguments.run, tuple(arguments.sets), arguments.model, ways)
    except ParityError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    for way, difference in results.items():
        print(f"{ways[0]} → {way}: {describe(difference)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
