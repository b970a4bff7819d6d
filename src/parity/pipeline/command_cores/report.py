"""Evidence → report.html, report.md: the run's story, every score, what differs, forecasts."""

from pathlib import Path

from parity.analysis.report import html
from parity.analysis.report.html import Page
from parity.analysis.report.tables import Rows, scores_table
from parity.competition import csv_reader
from parity.competition.eedi import submission
from parity.competition.eedi.kaggle_files import SUBMISSION_COLUMNS
from parity.competition.query import MisconceptionId, Qrels, QueryId
from parity.competition.scoring import metrics
from parity.competition.scoring.metrics import Scores
from parity.pipeline import dag, dataset, encoder_loading
from parity.pipeline.command_cores import report_sections
from parity.pipeline.dag import StageGraph
from parity.pipeline.dataset import Dataset
from parity.pipeline.ranked_examples import examples
from parity.pipeline.stage_cores import evaluate
from parity.run import files, ledger
from parity.run import manifest as manifests
from parity.run.experiment import Run

_SOLUTION = "solution.csv"


def rows(run: Run) -> list[tuple[str, Scores]]:
    """Return name and scores: the lexical baselines, the bare base, each round's best adapter."""
    named = {"bm25": "BM25", "tfidf": "TF-IDF", evaluate.BASE: "base model"}
    survey, found = StageGraph(), dict[str, Scores]()
    for number in range(dag.rounds(run)):
        at = run.at(number)
        for label in (evaluate.BASE, evaluate.BEST):
            read = evaluate.read(at, label) if _current(survey, at, label) else {}
            best = read.pop(evaluate.BEST, None)
            for method, scores in read.items():
                found.setdefault(named.get(method, method), scores)
            if best is not None:
                found[f"round {number}"] = best
    order = [*named.values(), *(f"round {number}" for number in range(dag.rounds(run)))]
    return [(name, found[name]) for name in order if name in found]


def _current(survey: StageGraph, run: Run, label: str) -> bool:
    """Return whether a score is one of what the run file and the stages before now say."""
    if label == evaluate.BEST:
        return survey.standing(run, "eval").state == "done"
    found = manifests.read(run.workspace.evaluation(run.round, label))
    prepared = manifests.read(run.workspace.prepare)
    if found is None or prepared is None or found.inputs.get("prepare") != prepared.digest():
        return False
    now = dag.config_of(run, "eval")
    return all(found.config.get(name) == now[name] for name in ("prompt", "encoder", "scoring"))


def _left_out(run: Run) -> list[str]:
    """Return a line for each score that is there and is not of what the run now says."""
    survey, lines = StageGraph(), []
    for number in range(dag.rounds(run)):
        at = run.at(number)
        for label, flags in ((evaluate.BASE, ("--adapter", evaluate.BASE)), (evaluate.BEST, ())):
            if evaluate.read(at, label) and not _current(survey, at, label):
                command = at.command("eval", *flags)
                lines.append(f"left out as stale: round {number}, {label}; run: {command}")
    return lines


def report(run: Run, *, with_text: bool = False) -> Path:
    """Write the run's report, as Markdown and as HTML, and print its tables; return the first.

    Args:
        run: at any round; all that have begun are told.
        with_text: let the HTML show text of the competition, for this machine only; the Markdown
            never does.

    Raises:
        StaleInput: the run is not prepared.
    """
    StageGraph().require(run.at(0), "mine")  # what mining wants first is what this wants: prepare
    known, stale = dataset.load(run), _left_out(run)
    valid, hidden = rows(run), _leaderboard(run)
    if valid:
        print(scores_table(valid, style="text"))
    for line in stale:
        print(line)
    if hidden:
        print("The made-up leaderboard: submissions scored on the test's labels.")
        print(scores_table(hidden, style="text"))
    page = _page(run, known, {"valid": valid, "hidden": hidden}, stale, with_text=with_text)
    files.write_text(run.workspace.report, html.markdown(page))
    files.write_text(run.workspace.report_html, html.html(page))
    print(f"to read in a browser: {run.workspace.report_html}")
    return run.workspace.report


def _page(
    run: Run, known: Dataset, scores: dict[str, Rows], stale: list[str], *, with_text: bool
) -> Page:
    last = run.at(max(dag.rounds(run) - 1, 0))
    records = ledger.read(run.workspace.ledger)
    stood = report_sections.standings(run)
    made_up = [report_sections.scored("hidden", "The made-up leaderboard", scores["hidden"], ())]
    sections = [
        report_sections.story(stood),
        report_sections.scored("scores", "Scores on the valid side", scores["valid"], stale),
        *(made_up if scores["hidden"] else ()),
        report_sections.against(records),
        report_sections.epochs(run),
        report_sections.ladder(last, records),
        report_sections.parts(run),
        report_sections.forecasts(last, records),
        examples(last, known, with_text=with_text),
        report_sections.costs(stood),
        report_sections.evidence(run, records),
    ]
    told = (
        f"{run.config.data.competition}, split {known.split.name} "
        f"(digest {known.split.digest()[:12]}), "
        f"base {encoder_loading.portable(run.config.encoder.base)}."
    )
    return Page(run.config.name, (told,), tuple(sections), with_text)


def _leaderboard(run: Run) -> list[tuple[str, Scores]]:
    """Score each round's submission where the competition comes with the labels of its test.

    Only the project's own competition does; nothing but this report ever reads them.
    """
    path = Path(run.config.data.source) / _SOLUTION
    if not path.is_file():
        return []
    known = dataset.load(run)
    sheet = csv_reader.read(path, SUBMISSION_COLUMNS)
    ids = map(int, sheet.columns[SUBMISSION_COLUMNS[1]])
    qrels: Qrels = {
        QueryId(row): frozenset({MisconceptionId(one)})
        for row, one in zip(sheet.columns[SUBMISSION_COLUMNS[0]], ids, strict=True)
    }
    shown = frozenset[MisconceptionId]().union(*known.qrels.values())
    unseen = frozenset(row for row, right in qrels.items() if shown.isdisjoint(right))
    survey, found = StageGraph(), []
    for number in range(dag.rounds(run)):
        at = run.at(number)
        path = dag.folder(at, "predict") / submission.NAME
        if path.is_file() and survey.standing(at, "predict").state == "done":
            ranking = submission.read(path).of(tuple(qrels))
            scores = metrics.evaluate(
                ranking, qrels, unseen, run.config.scoring, k=ranking.ids.shape[1]
            )
            found.append((f"round {number}", scores))
    return found
