"""The whole loop in one command: two rounds, each predicted, packed and rehearsed, and a report."""

import time
from collections.abc import Callable
from pathlib import Path

from parity.run.errors import BadConfig
from parity.stages import evaluate, graph, report
from parity.stages.graph import Survey
from parity.stages.mine import mine
from parity.stages.package import package
from parity.stages.predict import predict
from parity.stages.prepare import prepare
from parity.stages.rehearse import rehearse
from parity.stages.run import Run, open_run
from parity.stages.train import train

_OWN, _REAL = Path("runs/demo.toml"), Path("runs/eedi.toml")
_QUICK = (
    "encoder.layers=2",
    "training.epochs=1",
    "training.minutes=0.1",
    "training.checkpoint_every=5",
)
_ROUNDS = 2

Stage = Callable[[Run], None]
_STAGES: dict[str, Stage] = {
    "prepare": prepare,
    "mine": mine,
    "train": train,
    "eval": evaluate.evaluate,
    "predict": predict,
    "package": package,
    "rehearse": rehearse,
}


def demo(data: Path | None, *, quick: bool, overrides: tuple[str, ...] = ()) -> None:
    """Run everything that is not done yet; print the table, or last the path of the submission.

    Args:
        data: folder with Kaggle's four files; None is the project's own competition.
        quick: a few steps of everything, to see that it runs; its scores mean nothing.
        overrides: settings over the run file.

    Raises:
        BadConfig: the folder does not exist.
    """
    started = time.monotonic()
    if data is not None and not data.is_dir():
        raise BadConfig(f"--data {data}: no such folder; it must hold Kaggle's four CSV files")
    chosen = (*(_QUICK if quick else ()), *overrides)
    if data is not None:
        chosen = (f"data.source={data.as_posix()}", *chosen)
    run = open_run(_OWN if data is None else _REAL, chosen)
    for number in range(_ROUNDS):
        for stage in graph.STAGES:
            _once(run.at(number), stage)
        if number == 0 and not evaluate.read(run, evaluate.BASE):
            evaluate.evaluate(run, evaluate.BASE)
    print(f"\n== report ({time.monotonic() - started:.0f} s in all)")
    written = report.report(run)
    if quick:
        print("quick: a few steps of everything; these scores mean nothing")
    print(f"report: {written}")
    print(graph.folder(run.at(_ROUNDS - 1), "predict") / "submission.csv")


def _once(run: Run, stage: str) -> None:
    """Start a stage unless it is done; its output tells which command would."""
    if stage == "prepare" and run.round:
        return
    if Survey().standing(run, stage).state == "done":
        print(f"\n== {graph.label_of(stage, run)}: done before")
        return
    started = time.monotonic()
    print(f"\n== {run.command(stage)}", flush=True)
    _STAGES[stage](run)
    print(f"({time.monotonic() - started:.0f} s)", flush=True)
