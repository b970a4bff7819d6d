"""The whole loop in one command: two rounds, the last packed, rehearsed and compared, a report."""

import time
from collections.abc import Callable
from pathlib import Path

from parity.competition.eedi import submission
from parity.pipeline import dag
from parity.pipeline.command_cores import report
from parity.pipeline.command_cores.wheels import wheels
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage_cores import evaluate
from parity.pipeline.stage_cores.mine import mine
from parity.pipeline.stage_cores.package import package
from parity.pipeline.stage_cores.predict import predict
from parity.pipeline.stage_cores.prepare import prepare
from parity.pipeline.stage_cores.reconcile import latest
from parity.pipeline.stage_cores.rehearse import rehearse
from parity.pipeline.stage_cores.train import train
from parity.run.errors import BadConfig
from parity.run.experiment import Run, open_run

_OWN, _REAL = "demo", "eedi"
_ROUNDS = 2

Stage = Callable[[Run], object]
_STAGES: dict[str, Stage] = {
    "prepare": prepare,
    "mine": mine,
    "train": train,
    "eval": evaluate.evaluate,
    "predict": predict,
    "package": package,
    "rehearse": rehearse,
    "reconcile": latest,
}


def demo(data: Path | None, *, quick: bool, overrides: tuple[str, ...] = ()) -> None:
    """Run everything that is not done yet; print the table, or last the path of the submission.

    Args:
        data: folder with Kaggle's four files; None is the project's own competition.
        quick: a few steps of everything, to see that it runs; its scores mean nothing.
        overrides: settings over the run file, `runs/demo.toml` or for real data `runs/eedi.toml`.

    Raises:
        BadConfig: the folder does not exist.
        Different: the rehearsal and the CV are not of one model.
    """
    started = time.monotonic()
    if data is not None and not data.is_dir():
        raise BadConfig(f"--data {data}: no such folder; it must hold Kaggle's four CSV files")
    name = _OWN if data is None else _REAL
    chosen = overrides if data is None else (f"data.source={data.as_posix()}", *overrides)
    run = open_run(Path("runs") / f"{name}{'-quick' if quick else ''}.toml", chosen)
    last = run.at(_ROUNDS - 1)
    _once(run, "prepare")
    if run.config.shipping.wheels:
        wheels(run)  # what packing will need, before the minutes that training takes
    for number in range(_ROUNDS):
        for stage in ("mine", "train", "eval"):
            _once(run.at(number), stage)
        if number == 0 and not evaluate.read(run, evaluate.BASE):
            print(f"\n== {run.command('eval', '--adapter', evaluate.BASE)}", flush=True)
            evaluate.evaluate(run, evaluate.BASE)
    for stage in ("predict", "package", "rehearse", "reconcile"):
        _once(last, stage)
    print(f"\n== report ({time.monotonic() - started:.0f} s in all)")
    written = report.report(run)
    if quick:
        print("quick: a few steps of everything; these scores mean nothing")
    print(f"report: {written}")
    print(dag.folder(last, "predict") / submission.NAME)


def _once(run: Run, stage: str) -> None:
    """Start a stage unless it is done; its output tells which command would."""
    if StageGraph().standing(run, stage).state == "done":
        print(f"\n== {dag.label_of(stage, run)}: done before")
        return
    started = time.monotonic()
    print(f"\n== {run.command(stage)}", flush=True)
    _STAGES[stage](run)
    print(f"({time.monotonic() - started:.0f} s)", flush=True)
