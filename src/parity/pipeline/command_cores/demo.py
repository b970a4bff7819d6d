"""Run the entire pipeline in one command: two rounds, the last one rehearsed, and a report."""

import time
from pathlib import Path

from parity.competition.kinds import competition_of
from parity.pipeline import dag, model_reference, registry
from parity.pipeline.command_cores import report
from parity.pipeline.command_cores.wheels import wheels
from parity.pipeline.dag import StageGraph
from parity.pipeline.declaration import Stage
from parity.pipeline.model_reference import BASE
from parity.run.errors import BadConfig, ParityError
from parity.run.experiment import Run, open_run

_SYNTHETIC, _REAL = "demo", "eedi"
_ROUNDS = 2


def demo(data: Path | None, *, quick: bool, overrides: tuple[str, ...] = ()) -> None:
    """Run every stage that is not done and needs no Kaggle; print the submission's path last.

    Args:
        data: folder with Kaggle's four files; None is the synthetic competition.
        quick: run a few steps of everything, to see that it works; its scores mean nothing.
        overrides: settings over the run file, `runs/demo.toml` or for real data `runs/eedi.toml`.

    Raises:
        BadConfig: the folder does not exist.
        ResultsDiffer: rehearsal and CV do not come from one model.
    """
    started = time.monotonic()
    if data is not None and not data.is_dir():
        raise BadConfig(f"--data {data}: no such folder; it must hold Kaggle's four CSV files")
    name = _SYNTHETIC if data is None else _REAL
    settings = overrides if data is None else (f"data.source={data.as_posix()}", *overrides)
    run = open_run(Path("runs") / f"{name}{'-quick' if quick else ''}.toml", settings)
    last = run.at(_ROUNDS - 1)
    for at_round, stage in _stages(run):
        _run_unless_done(at_round, stage)
        if stage == _first_stage() and run.config.shipping.wheels:
            wheels(run)  # packaging needs them; download before the minutes that training takes
    print(f"\n== report ({time.monotonic() - started:.0f} s in all)")
    path = report.report(run)
    if quick:
        print("quick: a few steps of everything; these scores mean nothing")
    print(f"report: {path}")
    print(dag.folder(last, "predict") / competition_of(run.config.competition).submission.file)


def _first_stage() -> Stage:
    return registry.stages()[0]


def _stages(run: Run) -> list[tuple[Run, Stage]]:
    """Return the stages of every round, then of the last alone what needs no Kaggle account."""
    stages = [stage for stage in registry.stages() if dag.applies(run, stage.name)]
    shared = [(run, stage) for stage in stages if not stage.has_round]
    repeated = [
        (run.at(number), stage)
        for number in range(_ROUNDS)
        for stage in stages
        if stage.has_round and stage.every_round
    ]
    last = [
        (run.at(_ROUNDS - 1), stage)
        for stage in stages
        if not stage.every_round and not stage.needs_kaggle
    ]
    return [*shared, *repeated, *last]


def _run_unless_done(run: Run, stage: Stage) -> None:
    """Run a stage unless it is done; print the command that would."""
    if StageGraph().standing(run, stage.name).state == "done":
        print(f"\n== {dag.label_of(stage.name, run)}: done before")
    else:
        started = time.monotonic()
        print(f"\n== {run.command(stage.name)}", flush=True)
        _run(run, stage)
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
    if (
        stage.evidence == "cv"
        and run.round == 0
        and StageGraph().evaluation(run, base := model_reference.resolve(BASE, run)).state != "done"
    ):
        print(f"\n== {run.command(stage.name, '--model', base.reference)}", flush=True)
        _run(run, stage, model=base.reference)


def _run(run: Run, stage: Stage, **changed: object) -> None:
    """Call a stage's function with its options as they are by default, but for some."""
    options = {option.keyword: option.value_without for option in stage.options}
    try:
        registry.import_function(stage.function)(run, **options | changed)
    except ParityError as error:
        if error.fix:  # the front end knows the demo's options, not the run of this stage
            error.fix = registry.complete_fix(
                error.fix, run_file=run.file, overrides=run.config.overrides, round_=run.round
            )
        raise
