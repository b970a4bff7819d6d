"""The stages in order: which are done, stale or missing, and the next command."""

from collections.abc import Sequence
from pathlib import Path

from parity.pipeline import dag
from parity.pipeline.dag import StageGraph, StageStatus
from parity.run.errors import BadConfig
from parity.run.experiment import Run, open_run
from parity.run.progress import wrapped

RUNS = Path("runs")
_WIDTH = 78
_LEARNING = ("prepare", "mine", "train", "eval")


def story(file: Path | None, overrides: tuple[str, ...] = ()) -> None:
    """Print where one run stands, or every run in `runs/` that has begun.

    Raises:
        BadConfig: the run file is wrong, or there is no run file at all.
    """
    if file is not None:
        print(_told(open_run(file, overrides)))
        return
    files = sorted(RUNS.glob("*.toml"))
    if not files:
        raise BadConfig(f"no run file in {RUNS}/; a run is one TOML file there")
    runs = [open_run(path, overrides) for path in files]
    begun = [run for run in runs if run.workspace.root.is_dir()]
    waiting = [run.file.as_posix() for run in runs if run not in begun]
    print("\n\n".join([*map(_told, begun), *_not_begun(waiting, first=not begun)]))


def _not_begun(waiting: Sequence[str], *, first: bool) -> list[str]:
    if not waiting:
        return []
    told = "not begun: " + ", ".join(waiting)
    lines = wrapped(told)
    if first:
        lines += ["next: invoke demo   (everything, on the project's own competition)"]
    return ["\n".join(lines)]


def _told(run: Run) -> str:
    """Return a run's table, a line a stage and a column a round."""
    survey, count = StageGraph(), max(dag.rounds(run), 1)
    at = [run.at(number) for number in range(count)]
    head = f"{run.file.as_posix()}: split {run.config.split.name}"
    titles = "".join(f"{f'round {n}':<10}" for n in range(count))
    lines = [head, f"  {'stage':<10}{titles}".rstrip()]
    reasons, verdicts = [], []
    for stage in dag.STAGES:
        columns = at[:1] if stage == "prepare" else at
        found = [
            (column, survey.standing(column, stage))
            for column in columns
            if _applies(column, stage)
        ]
        cells = "".join(f"{standing.state:<10}" for _, standing in found)
        lines.append(f"  {stage:<10}{cells}".rstrip())
        reasons += [
            f"  {dag.label_of(stage, one)}: {standing.why}"[:_WIDTH]
            for one, standing in found
            if standing.why
        ]
        verdicts += [
            f"  {dag.label_of(stage, one)}: {standing.manifest.facts['verdict']}"[:_WIDTH]
            for one, standing in found
            if standing.manifest and standing.state == "done" and stage == "reconcile"
        ]
    return "\n".join([*lines, *verdicts, *reasons, f"  next: {_next(survey, at)}"])


def _applies(run: Run, stage: str) -> bool:
    return stage != "eval" or run.config.split.kind != "full"


def _next(survey: StageGraph, at: Sequence[Run]) -> str:
    for one in at:
        # Of a round that another follows, nothing has to be shipped.
        stages = dag.STAGES if one is at[-1] else _LEARNING
        for stage in stages:
            if _applies(one, stage) and not _done(survey.standing(one, stage)):
                return one.command(stage)
    further = at[-1].at(len(at)).command("mine")
    return f"{at[0].command('report')}\n  or a further round: {further}"


def _done(standing: StageStatus) -> bool:
    return standing.state == "done"
