"""Print which stages are done, stale or missing, and the next command."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from parity.pipeline import dag, evaluations, registry
from parity.pipeline.dag import StageGraph, StageStatus
from parity.run.command_line import build_command
from parity.run.errors import BadConfig
from parity.run.experiment import RUNS, Run, open_run, run_files
from parity.run.progress import wrap_lines

_WIDTH = 78
_RESULT = "result"  # fact of a stage that compares


def status(run: Path | None, overrides: tuple[str, ...] = ()) -> None:
    """Print the stages of one run, or of every run in `runs/` that has started.

    Args:
        run: run file; None prints all.
        overrides: settings over the run file.

    Raises:
        BadConfig: the run file is wrong, or there is no run file at all.
    """
    if run is not None:
        print(_table(open_run(run, overrides)))
        return
    files = run_files()
    if not files:
        raise BadConfig(f"no run file in {RUNS}/. Write one TOML file for each run")
    runs = [open_run(path, overrides) for path in files]
    started = [item for item in runs if item.workspace.root.is_dir()]
    waiting = [item.file.as_posix() for item in runs if item not in started]
    print("\n\n".join([*map(_table, started), *_not_started(waiting, is_first=not started)]))


def stages_of(run: Run) -> Iterator[tuple[Run, str]]:
    """Yield every stage of every round that has started, each with its round, in order.

    A round that another one follows needs no submission.
    """
    count = max(dag.rounds(run), 1)
    for number in range(count):
        is_last = number == count - 1
        for stage in registry.stages():
            is_due = is_last or stage.every_round
            is_shared = number > 0 and not stage.has_round
            if is_due and not is_shared and dag.applies(run, stage.name):
                yield run.at(number), stage.name


def _not_started(waiting: Sequence[str], *, is_first: bool) -> list[str]:
    if not waiting:
        return []
    lines = wrap_lines("not started: " + ", ".join(waiting))
    if is_first:
        lines += [f"next: {build_command('demo')}   (everything, on the synthetic competition)"]
    return ["\n".join(lines)]


def _table(run: Run) -> str:
    """Return a run's table, a line for each stage and a column for each round."""
    graph, count = StageGraph(), max(dag.rounds(run), 1)
    rounds = [run.at(number) for number in range(count)]
    head = f"{run.file.as_posix()}: split {run.config.split.name}"
    titles = "".join(f"{f'round {number}':<10}" for number in range(count))
    lines, reasons, results = [head, f"  {'stage':<10}{titles}".rstrip()], [], []
    for stage in registry.stages():
        columns = rounds if stage.has_round else rounds[:1]
        statuses = [
            (column, graph.standing(column, stage.name))
            for column in columns
            if dag.applies(column, stage.name)
        ]
        cells = "".join(f"{state.state:<10}" for _, state in statuses)
        lines.append(f"  {stage.name:<10}{cells}".rstrip())
        reasons += _lines(stage.name, [(column, state.reason) for column, state in statuses])
        results += _lines(stage.name, [(column, _result(state)) for column, state in statuses])
    scores = _score_lines(graph, run)
    return "\n".join([*lines, *results, *reasons, *scores, f"  next: {_next_command(graph, run)}"])


def _score_lines(graph: StageGraph, run: Run) -> list[str]:
    """Return the clean and current scores of models and evaluations, and how many are missing."""
    scored = list(evaluations.scored_models(run, graph))
    if not scored:
        return []
    values = (f"{model.name} {_three(model.value)}" for model in scored)
    metric = scored[0].scores.metric.short
    by = "projection" if scored[0].scores.projection else metric
    lines = wrap_lines(f"scores ({by}): {', '.join(values)}", "  ")
    missing = evaluations.missing(run, graph)
    if missing and run.config.evaluations:
        command = run.at(0).command("eval", "--all")
        lines.append(f"  not scored, models × evaluations: {len(missing)}. {command}")
    return lines


def _three(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _lines(stage: str, texts: Sequence[tuple[Run, str]]) -> list[str]:
    return [f"  {dag.label_of(stage, run)}: {text}"[:_WIDTH] for run, text in texts if text]


def _result(status: StageStatus) -> str:
    """Return what a finished comparison found; empty for other stages."""
    if status.manifest is None or status.state != "done":
        return ""
    return str(status.manifest.facts.get(_RESULT, ""))


def _next_command(graph: StageGraph, run: Run) -> str:
    for at_round, stage in stages_of(run):
        if graph.standing(at_round, stage).state != "done":
            return at_round.command(stage)
    further = run.at(max(dag.rounds(run), 1))
    first = registry.stage_names(has_round=True)[0]
    return f"{run.at(0).command('report')}\n  or a further round: {further.command(first)}"
