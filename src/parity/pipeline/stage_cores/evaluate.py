"""4. Model × settings → scores of all, seen and unseen rows → evidence `cv`."""

from pathlib import Path
from typing import Any

from parity.competition import ranking as rankings
from parity.competition.scoring.significance import compare
from parity.pipeline import (
    dag,
    dataset,
    evaluations,
    registry,
    score_tables,
)
from parity.pipeline.dag import StageGraph
from parity.pipeline.dataset import Dataset
from parity.pipeline.evaluation_job import EncoderCache, Job, score_model
from parity.retrieval.engine.distributed import ProcessGroup, current_group
from parity.run.errors import BadConfig, Contaminated, Mismatch, ParityError, StaleInput
from parity.run.experiment import Run, open_run
from parity.run.progress import progress, wrap

ALL = "all"
"""Reference of every model of the run."""


def evaluate(
    run: Run,
    model: str = "",
    *,
    evaluation: str = "",
    against: Path | None = None,
    csv: Path | None = None,
    accept_contaminated: bool = False,
) -> dict[str, Any]:
    """Score models on the validation set, together with the lexical baselines.

    Args:
        run: run at its round.
        model: reference of the model; empty is the round's best adapter, `all` every model of the
            run that has no current score.
        evaluation: name of the evaluation whose settings are used; empty uses those of the run,
            and for all models also those of every named evaluation.
        against: run file of another run, to compare the model with its best one under the same
            evaluation.
        csv: file for the table of scores.
        accept_contaminated: whether to score rows that the adapter was trained on; such scores
            appear in no table.

    Returns:
        What `--json` prints.

    Raises:
        Contaminated: the adapter was trained on rows of the validation set, and too few remain.
        BadConfig: the validation set is empty, there is no such model or evaluation, or all models
            are to be compared with one.
    """
    if model == ALL and against is not None:
        raise BadConfig("--all and --against: a single model is compared. Use --model")
    workers = current_group()
    run = run.evaluated_as(evaluation)
    encoders = EncoderCache(workers)
    if model == ALL:
        _score_missing(run, encoders, workers, accept_contaminated=accept_contaminated)
    else:
        job = _job(run, model)
        score_model(job, encoders, workers, accept_contaminated=accept_contaminated)
    if not workers.is_main:
        return {}
    models = list(evaluations.scored_models(run, StageGraph()))
    tables = score_tables.build_tables(models)
    print("\n\n".join(map(score_tables.render_table, tables)) or "no clean and current score")
    if csv is not None:
        score_tables.write_csv(csv, tables)
        print(f"table: {csv}")
    if against is not None:
        print(_against(job, open_run(against).evaluated_as(evaluation)))
    return {"evaluations": score_tables.as_json(tables)}


def _job(run: Run, reference: str) -> Job:
    model = StageGraph().model(run, "eval", reference)
    assert model is not None  # `eval` loads one
    return Job(run.at(model.round), model)


def _score_missing(
    run: Run, encoders: EncoderCache, workers: ProcessGroup, *, accept_contaminated: bool
) -> None:
    """Score every model under all settings, where no current score exists."""
    jobs = [Job(*pair) for pair in evaluations.missing(run, StageGraph())]
    # Jobs that share an encoder follow each other.
    jobs.sort(key=lambda job: (str(job.model.folder), job.run.config.encoder.model_dump_json()))
    lines = []
    with progress("score what is missing", len(jobs), "evaluation") as bar:
        for job in jobs:
            try:
                score_model(
                    job,
                    encoders,
                    workers,
                    accept_contaminated=accept_contaminated,
                    is_quiet=True,
                )
            except ParityError as error:
                lines.append(f"not scored: {job.label}: {registry.describe_error(error, job.run)}")
            bar.update(1)
    if workers.is_main:
        print("\n".join([f"{len(jobs) - len(lines)} of {len(jobs)} scored", *map(wrap, lines)]))


def _against(job: Job, other: Run) -> str:
    """Compare with another run's best adapter, on the rows that both were scored on."""
    run, other = job.run, other.at(job.run.round)
    standing = StageGraph().standing(other, "eval")
    if standing.state != "done":
        problem = f"a stale score ({standing.reason})" if standing.reason else "no score"
        flags = ("--as", other.evaluation) if other.evaluation else ()
        fix = other.command_words("eval", *flags)
        raise StaleInput(f"{other.config.name} has {problem}", fix=fix)
    folders = dag.evaluation_folder(run, job.model), dag.folder(other, "eval")
    if not all(map(evaluations.read, folders)):
        raise Contaminated(
            "one of the two was trained on rows it was scored on; such scores are not compared"
        )
    first, second = (rankings.read(folder / "ranking.jsonl") for folder in folders)
    if set(first.query_ids) != set(second.query_ids):
        raise Mismatch(
            f"{run.config.name} and {other.config.name} were scored on different rows "
            f"(splits {run.config.split.name} and {other.config.split.name}). "
            "Use the same split in both"
        )
    data = score_tables.with_rows_of(dataset.load(run.config, run.workspace), folders[0])
    return _describe_difference(run, other, data, (first, second))


def _describe_difference(
    run: Run, other: Run, data: Dataset, pair: tuple[rankings.Ranking, rankings.Ranking]
) -> str:
    result = compare(*pair, data.valid_qrels, data.split.unseen, run.config.scoring, data.metric)
    estimate = result.projection or result.all
    better = {"a is better": run, "b is better": other}.get(result.result)
    conclusion = f"{better.config.name} is better" if better else result.result
    lines = [
        f"{run.config.name} against {other.config.name}: {conclusion} "
        f"(difference {estimate.value:+.4f}, 95 % {estimate.low:+.4f} to {estimate.high:+.4f})",
        *result.findings,
    ]
    return "\n".join(lines)
