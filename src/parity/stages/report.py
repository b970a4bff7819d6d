"""Evidence → report.md: every score of the run in one table, and what the rehearsal proved."""

from pathlib import Path

from parity.competition import metrics, sheets, submission
from parity.competition.metrics import Scores
from parity.competition.questions import MisconceptionId, Qrels, QueryId
from parity.competition.tables import SUBMISSION_COLUMNS
from parity.reconcile.tables import scores_table
from parity.run import files, ledger
from parity.run import manifest as manifests
from parity.stages import evaluate, graph, nouns
from parity.stages.graph import Survey
from parity.stages.run import Run

_SOLUTION = "solution.csv"
_TOLD = ("queries", "misconceptions", "diversity", "steps", "best_epoch", "precision", "peak_gib")


def rows(run: Run) -> list[tuple[str, Scores]]:
    """Return name and scores: the lexical baselines, the bare base, each round's best adapter."""
    named = {"bm25": "BM25", "tfidf": "TF-IDF", evaluate.BASE: "base model"}
    survey, found = Survey(), dict[str, Scores]()
    for number in range(graph.rounds(run)):
        at = run.at(number)
        for label in (evaluate.BASE, evaluate.BEST):
            read = evaluate.read(at, label) if _current(survey, at, label) else {}
            best = read.pop(evaluate.BEST, None)
            for method, scores in read.items():
                found.setdefault(named.get(method, method), scores)
            if best is not None:
                found[f"round {number}"] = best
    order = [*named.values(), *(f"round {number}" for number in range(graph.rounds(run)))]
    return [(name, found[name]) for name in order if name in found]


def _current(survey: Survey, run: Run, label: str) -> bool:
    """Return whether a score is one of what the run file and the stages before now say."""
    if label == evaluate.BEST:
        return survey.standing(run, "eval").state == "done"
    found = manifests.read(run.workspace.evaluation(run.round, label))
    prepared = manifests.read(run.workspace.prepare)
    if found is None or prepared is None or found.inputs.get("prepare") != prepared.digest():
        return False
    now = graph.config_of(run, "eval")
    return all(found.config.get(name) == now[name] for name in ("prompt", "encoder", "scoring"))


def _left_out(run: Run) -> list[str]:
    """Return a line for each score that is there and is not of what the run now says."""
    survey, lines = Survey(), []
    for number in range(graph.rounds(run)):
        at = run.at(number)
        for label, flags in ((evaluate.BASE, ("--adapter", evaluate.BASE)), (evaluate.BEST, ())):
            if evaluate.read(at, label) and not _current(survey, at, label):
                command = at.command("eval", *flags)
                lines.append(f"left out as stale: round {number}, {label}; run: {command}")
    return lines


def report(run: Run) -> Path:
    """Write the run's report and print its tables; return the file.

    Raises:
        StaleInput: the run is not prepared.
    """
    Survey().require(run.at(0), "mine")  # what mining wants first is what this wants: prepare
    known = nouns.load(run)
    scored = rows(run)
    lines = [f"# {run.config.name}", ""]
    lines += [
        f"{run.config.data.competition}, split `{known.split.name}` "
        f"(digest `{known.split.digest()[:12]}`), base `{run.config.encoder.base}`.",
        "",
    ]
    if scored:
        lines += ["## Scores on the valid side", "", scores_table(scored, style="markdown"), ""]
        print(scores_table(scored, style="text"))
    for line in _left_out(run):
        lines += [line, ""]
        print(line)
    hidden = _leaderboard(run)
    if hidden:
        table = scores_table(hidden, style="markdown")
        lines += ["## The made-up leaderboard", "", table, ""]
        print("The made-up leaderboard: submissions scored on the test's labels.")
        print(scores_table(hidden, style="text"))
    lines += ["## Stages", "", *_stages(run), ""]
    lines += ["## Evidence", "", *_evidence(run), ""]
    files.write_text(run.workspace.report, "\n".join(lines))
    return run.workspace.report


def _leaderboard(run: Run) -> list[tuple[str, Scores]]:
    """Score each round's submission where the competition comes with the labels of its test.

    Only the project's own competition does; nothing but this report ever reads them.
    """
    path = Path(run.config.data.source) / _SOLUTION
    if not path.is_file():
        return []
    known = nouns.load(run)
    sheet = sheets.read(path, SUBMISSION_COLUMNS)
    ids = map(int, sheet.columns[SUBMISSION_COLUMNS[1]])
    qrels: Qrels = {
        QueryId(row): frozenset({MisconceptionId(one)})
        for row, one in zip(sheet.columns[SUBMISSION_COLUMNS[0]], ids, strict=True)
    }
    shown = frozenset[MisconceptionId]().union(*known.qrels.values())
    unseen = frozenset(row for row, right in qrels.items() if shown.isdisjoint(right))
    survey, found = Survey(), []
    for number in range(graph.rounds(run)):
        at = run.at(number)
        path = graph.folder(at, "predict") / "submission.csv"
        if path.is_file() and survey.standing(at, "predict").state == "done":
            ranking = submission.read(path).of(tuple(qrels))
            scores = metrics.evaluate(
                ranking, qrels, unseen, run.config.scoring, k=ranking.ids.shape[1]
            )
            found.append((f"round {number}", scores))
    return found


def _stages(run: Run) -> list[str]:
    lines = ["| stage | seconds | what it says |", "| --- | --: | --- |"]
    for number in range(max(graph.rounds(run), 1)):
        for stage in graph.STAGES:
            if stage == "prepare" and number:
                continue
            at = run.at(number)
            found = manifests.read(graph.folder(at, stage))
            if found is not None:
                told = {key: value for key, value in found.facts.items() if key in _TOLD}
                said = "; ".join(f"{key} {value}" for key, value in told.items())
                lines.append(f"| {graph.label_of(stage, at)} | {found.seconds:.0f} | {said} |")
    return lines


def _evidence(run: Run) -> list[str]:
    lines = [
        "| id | kind | round | what | submission | made |",
        "| --- | --- | --: | --- | --- | --- |",
    ]
    for one in ledger.read(run.workspace.ledger):
        if one.run == run.config.name and one.status != "polluted":
            sent = one.layers["submission"][:12]
            name = ledger.id_of(one)[:12]
            lines.append(
                f"| {name} | {one.kind} | {one.round} | {one.label} | {sent} | {one.made} |"
            )
    return lines
