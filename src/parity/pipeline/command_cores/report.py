"""`report`: write report.html and report.md with stages, scores, differences and forecasts."""

from collections.abc import Iterator
from pathlib import Path

from parity.analysis.report import html
from parity.analysis.report.html import Page
from parity.analysis.report.tables import Rows, scores_table
from parity.competition import ranking as rankings
from parity.competition.query import Position, Qrels
from parity.competition.ranking import Ranking
from parity.competition.scoring import metrics
from parity.competition.scoring.metrics import Scores
from parity.pipeline import (
    dag,
    dataset,
    encoder_loading,
    evaluations,
    model_reference,
    registry,
    score_tables,
)
from parity.pipeline.command_cores import report_sections, score_sections
from parity.pipeline.command_cores.report_sections import EpochScores
from parity.pipeline.dag import StageGraph
from parity.pipeline.dataset import Dataset
from parity.pipeline.model_reference import BASE, BEST, Model
from parity.pipeline.ranked_examples import examples
from parity.pipeline.score_tables import ScoreTable
from parity.run import files, ledger
from parity.run.experiment import Run
from parity.run.paths import RunPaths

_SOLUTION = "solution.csv"


def rows(run: Run) -> list[tuple[str, Scores]]:
    """Return name and scores of the lexical baselines, the base model and each round's adapter."""
    titles = {"bm25": "BM25", "tfidf": "TF-IDF", BASE: "base model"}
    graph, results = StageGraph(), dict[str, Scores]()
    for run_at_round, model in _main_models(run):
        folder = dag.evaluation_folder(run_at_round, model)
        is_current = graph.evaluation(run_at_round, model).state == "done"
        scores_by_method = evaluations.read(folder) if is_current else {}
        label = dag.evaluation_label(model, run_at_round)
        if label in scores_by_method:
            name = titles[BASE] if model.label == BASE else f"round {model.round}"
            results[name] = scores_by_method.pop(label)
        for method, scores in scores_by_method.items():
            results.setdefault(titles.get(method, method), scores)
    order = [*titles.values(), *(f"round {number}" for number in range(dag.rounds(run)))]
    return [(name, results[name]) for name in order if name in results]


def _main_models(run: Run) -> Iterator[tuple[Run, Model]]:
    """Yield the base model and the best adapter of each finished round, with the run there."""
    yield run.at(0), model_reference.resolve(BASE, run)
    for number in range(dag.rounds(run)):
        best = model_reference.find(BEST, run.at(number))
        if best is not None:
            yield run.at(number), best


def _stale_scores(run: Run) -> list[str]:
    """Return a line for each score that is stale."""
    graph, lines = StageGraph(), []
    for run_at_round, model in _main_models(run):
        is_scored = evaluations.read(dag.evaluation_folder(run_at_round, model))
        if is_scored and graph.evaluation(run_at_round, model).state != "done":
            command = registry.render_fix(dag.evaluation_words(run_at_round, model))
            lines.append(f"left out as stale: {model.reference}. Run: `{command}`")
    return lines


def report(run: Run, *, with_text: bool = False) -> Path:
    """Write the run's report as Markdown and as HTML, and print its tables.

    Args:
        run: run at any round; the report has every round that has started.
        with_text: True to show text of the competition in the HTML, for this machine only; the
            Markdown never contains it.

    Returns:
        Path of the Markdown.

    Raises:
        StaleInput: the run is not prepared.
    """
    StageGraph().require(run.at(0), "mine")  # the report needs what mining needs: prepare
    data, stale = dataset.load(run.config, run.workspace), _stale_scores(run)
    valid_scores, test_scores = rows(run), _leaderboard(run, data)
    if valid_scores:
        print(scores_table(valid_scores, style="text"))
    for line in stale:
        print(line)
    if test_scores:
        print("Synthetic leaderboard: submissions scored on the labels of the test.")
        print(scores_table(test_scores, style="text"))
    page = _page(
        run, data, {"valid": valid_scores, "hidden": test_scores}, stale, with_text=with_text
    )
    files.write_text(run.workspace.report, html.markdown(page))
    files.write_text(run.workspace.report_html, html.html(page))
    print(f"open in a browser: {run.workspace.report_html}")
    return run.workspace.report


def _page(
    run: Run, data: Dataset, scores: dict[str, Rows], stale: list[str], *, with_text: bool
) -> Page:
    last = run.at(max(dag.rounds(run) - 1, 0))
    records = ledger.read(run.workspace.ledger)
    recorded = ledger.read_forecasts(run.workspace.ledger)
    standings = report_sections.standings(run)
    command = run.at(0).command("report", "--with-text")
    test_section = [score_sections.scored("hidden", "Synthetic leaderboard", scores["hidden"], ())]
    sections = [
        report_sections.story(standings),
        score_sections.scored("scores", "Scores on the validation set", scores["valid"], stale),
        *(test_section if scores["hidden"] else ()),
        score_sections.evaluations(_tables(run)),
        report_sections.against(records),
        report_sections.epochs(_epoch_scores(run)),
        report_sections.ladder(StageGraph().compared(last), run.workspace.data, records),
        report_sections.parts(run.workspace.attributions),
        report_sections.forecasts(recorded, records, last.command("forecast")),
        examples(_best_ranking(last), data, last.round, command, with_text=with_text),
        report_sections.costs(standings),
        report_sections.evidence(run.config.name, records),
    ]
    description = (
        f"{run.config.data.competition}, split {data.split.name} "
        f"(digest {data.split.digest()[:12]}), "
        f"base {encoder_loading.portable_name(run.config.encoder.base)}."
    )
    return Page(run.config.name, (description,), tuple(sections), with_text)


def _tables(run: Run) -> list[ScoreTable]:
    """Return the tables of all clean and current evaluations of the run."""
    models = list(evaluations.scored_models(run, StageGraph()))
    return score_tables.build_tables(models)


def _epoch_scores(run: Run) -> list[EpochScores]:
    """Return the scores of each round's epochs, an empty list where the training is not current."""
    graph = StageGraph()
    return [
        list(_read_epochs(run.workspace, number))
        if graph.standing(run.at(number), "train").state == "done"
        else []
        for number in range(dag.rounds(run))
    ]


def _read_epochs(paths: RunPaths, round_: int) -> Iterator[tuple[int, Scores]]:
    """Yield number and scores of each scored epoch of a round."""
    number = 1
    while (path := paths.epoch(round_, number).with_suffix(".json")).is_file():
        scores = files.read_json(path)["scores"]
        if scores is not None:
            yield number, Scores.from_json(scores)
        number += 1


def _best_ranking(run: Run) -> Ranking | None:
    """Return the best adapter's ranking of the validation rows; None if not clean and current."""
    folder = dag.folder(run, "eval")
    is_current = StageGraph().standing(run, "eval").state == "done"
    if not is_current or not evaluations.read(folder):  # a contaminated one is not shown
        return None
    return rankings.read(folder / "ranking.jsonl")


def _leaderboard(run: Run, data: Dataset) -> list[tuple[str, Scores]]:
    """Return the scores of each round's submission, if the competition has the labels of its test.

    Only the synthetic competition has them, and only this report reads them.
    """
    path = run.source / _SOLUTION
    if not path.is_file():
        return []
    competition = data.competition
    solution = competition.read_submission(path, data.test, data.corpus)
    qrels: Qrels = {
        query_id: frozenset(Position(item) for item in positions if item >= 0)
        for query_id, positions in zip(solution.query_ids, solution.positions.tolist(), strict=True)
    }
    train_labels = frozenset[Position]().union(*data.qrels.values())
    unseen = frozenset(row for row, labels in qrels.items() if train_labels.isdisjoint(labels))
    graph, results = StageGraph(), []
    for number in range(dag.rounds(run)):
        run_at_round = run.at(number)
        path = dag.folder(run_at_round, "predict") / competition.submission.file
        if path.is_file() and graph.standing(run_at_round, "predict").state == "done":
            submitted = competition.read_submission(path, data.test, data.corpus)
            scores = metrics.evaluate(
                submitted.of(tuple(qrels)), qrels, unseen, run.config.scoring, data.metric
            )
            results.append((f"round {number}", scores))
    return results
