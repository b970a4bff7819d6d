"""`reconcile`: compare two records of evidence and name the first layer that differs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.analysis import run_table, run_table_summary
from parity.analysis.compare import conclusion, layer_values, leaderboard_gap
from parity.analysis.compare.evidence_record import EvidenceRecord
from parity.deploy.kernel import run_report
from parity.pipeline import changes, dag, evidence, evidence_lookup, registry
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage import stage_context
from parity.run import files, ledger
from parity.run.digest import canonical
from parity.run.errors import BadConfig, ResultsDiffer, StaleInput
from parity.run.experiment import Run, data_folder
from parity.run.ledger import Evidence
from parity.run.paths import RunPaths

STAGE = "reconcile"
CONCLUSION = "conclusion.json"
"""File of the stage with what it compared."""
_TABLE = ".csv"
_ATTRIBUTE = "parity.pipeline.command_cores.attribute:attribute"  # loads models


def reconcile_run_or_records(
    run: Run | None,
    *,
    records: Sequence[str] = (),
    imported: Path | None = None,
    attribute: bool = False,
    with_text: bool = False,
    rows: Sequence[str] = (),
) -> dict[str, Any]:
    """Compare what the user names, or the run's CV with its last step.

    Args:
        run: run to compare, or that references to models belong to; None if there is no run file.
        records: names of two records, or the path of one table of runs.
        imported: run_report.json whose evidence is added to the ledger first.
        attribute: True to attribute the gap to the layers.
        with_text: True to show texts of the competition where they differ.
        rows: `SPLIT=N` texts, scored rows of the splits of a table of runs.

    Returns:
        What `--json` prints.
    """
    if attribute:
        result: dict[str, Any] = registry.import_function(_ATTRIBUTE)(records, run)
        return result
    if run is not None and not (records or imported or rows):
        return reconcile_run(run, with_text=with_text)
    return reconcile(records, run=run, imported=imported, with_text=with_text, rows=rows)


def reconcile(
    names: Sequence[str],
    *,
    run: Run | None = None,
    imported: Path | None = None,
    with_text: bool = False,
    rows: Sequence[str] = (),
) -> dict[str, Any]:
    """Compare two records, or a record with a leaderboard score, and print the first difference.

    Args:
        names: two records, the second may be a score; or the path of a table of runs; empty to
            import only.
        run: run that references to models belong to.
        imported: run_report.json whose evidence is added to the ledger first.
        with_text: True to show texts of the competition where they differ.
        rows: `SPLIT=N` texts, scored rows of the splits of a table of runs.

    Returns:
        The conclusion as plain values.

    Raises:
        ResultsDiffer: they differ by more than noise.
        BadConfig: a record does not exist, or the number of names is wrong.
    """
    data = data_folder()
    result = import_report(imported, data) if imported else {}
    if len(names) == 1 and names[0].endswith(_TABLE):
        return result | summarize_table(Path(names[0]), run_table.parse_rows(rows))
    if rows:
        raise BadConfig("--rows belongs to a table of runs, FILE.csv")
    if not names:
        return result
    if len(names) != 2:
        raise BadConfig(
            f"found {len(names)} records to compare. Name two, or a record and a score, or one "
            f"table of runs, FILE{_TABLE}"
        )
    records = ledger.read(RunPaths(data, "").ledger)
    a = evidence_lookup.find_record(names[0], data, records, run)
    if evidence_lookup.NUMBER.fullmatch(names[1]):
        comparison, error = compare_with_score(a, float(names[1]), records)
    else:
        b = evidence_lookup.find_record(names[1], data, records, run)
        comparison, error = compare(a, b, data, records, with_text=with_text)
    if run is not None and any(map(evidence_lookup.is_of_run, names)) and error and error.fix:
        error.fix = run.command_words(*error.fix)
    return _raise_or_return(result | comparison, error)


def reconcile_run(run: Run, *, with_text: bool = False) -> dict[str, Any]:
    """Compare a run's newest CV with its last measurement, then with its leaderboard score.

    Without a validation set there is no CV, and the rehearsal is compared. The stage is done even
    if the records differ: `status` shows the conclusion until there is newer evidence.

    Raises:
        ResultsDiffer: they differ by more than noise.
        StaleInput: a record is missing or stale.
    """
    compared = StageGraph().compared(run)
    with stage_context(run, STAGE, inputs=changes.ids(compared)) as work:
        records = ledger.read(run.workspace.ledger)
        a, b = _ends(run, compared, records)
        result, error = compare(a, b, run.workspace.data, records, with_text=with_text)
        if {"cv", "public"} <= compared.keys():
            score = layer_values.value(compared["public"].score)
            if score is not None:
                result["public"], unexplained = compare_with_score(a, score, records)
                error = error or unexplained
        files.write_json(work.out(CONCLUSION), result)
        work.facts = {"result": str(error or result["line"])}
    return _raise_or_return(result, error)


def _ends(
    run: Run, compared: Mapping[str, Evidence], records: Sequence[Evidence]
) -> list[EvidenceRecord]:
    """Return the first and the last measurement of a run.

    Raises:
        StaleInput: the ledger has no evidence of a finished stage.
    """
    first = ["eval"] if dag.applies(run, "eval") else []
    for stage in (*first, *(name for name, _ in dag.needs(run, STAGE))):
        if evidence_lookup.KINDS[stage] not in compared:
            raise StaleInput(
                f"no evidence of {stage} in {run.workspace.ledger}", fix=run.command_words(stage)
            )
    return evidence_lookup.ends(compared, run.workspace.data, records)


def compare(
    a: EvidenceRecord,
    b: EvidenceRecord,
    data: Path,
    records: Sequence[Evidence],
    *,
    with_text: bool,
) -> tuple[dict[str, Any], ResultsDiffer | None]:
    """Print the comparison of two records.

    Returns:
        The conclusion as plain values, and an error where they differ by more than noise.
    """
    artifacts = evidence_lookup.load_artifacts(a, b, data, records, with_text=with_text)
    result = conclusion.conclude(a, b, artifacts)
    print(conclusion.text(result, a, b))
    values = {**result.as_json(), "line": result.line, "a": a.id, "b": b.id}
    if not result.layer:
        return values, None
    return values, ResultsDiffer(f"{result.line}. {result.advice}", fix=result.fix)


def compare_with_score(
    record: EvidenceRecord, score: float, records: Sequence[Evidence]
) -> tuple[dict[str, Any], ResultsDiffer | None]:
    """Print whether the CV of a record's adapter explains a leaderboard score.

    Returns:
        The explanation as plain values, and an error where neither sampling nor the unseen share
        explains the gap.

    Raises:
        BadConfig: the ledger has no CV of this adapter.
    """
    cv = _find_cv(record.evidence, records)
    scores = conclusion.cv_scores(EvidenceRecord(cv)) if cv else None
    if cv is None or scores is None:
        raise BadConfig(f"the ledger has no CV of the adapter of {record.name}", fix=("eval",))
    explanation = leaderboard_gap.explain_gap(scores, score)
    kinds = {
        item.kind
        for item in records
        if item.layers.get("adapter") == cv.layers.get("adapter") and item.run == cv.run
    }
    lines = list(explanation.lines)
    if cv.status == "contaminated":
        lines.append("the CV is contaminated: it was scored on rows its adapter was trained on")
    is_unexplained = explanation.cause == "neither"
    if is_unexplained:
        questions = leaderboard_gap.open_questions(cv.layers, kinds)
        lines += ["what could still be wrong:", *questions]
    print("\n".join([f"{EvidenceRecord(cv).name} against {score:g}", *lines]))
    values = {"result": explanation.cause, "lines": lines, "a": record.id, "number": score}
    if not is_unexplained:
        return values, None
    fix = leaderboard_gap.next_measurement(kinds)
    return values, ResultsDiffer(f"different: {explanation.lines[-1]}", fix=fix)


def import_report(path: Path, data: Path) -> dict[str, Any]:
    """Add the evidence of a run_report.json, with the artifacts in its folder, to the ledger once.

    Raises:
        BadConfig: the file does not exist.
        BadData: the file is not a run report.
    """
    if not path.is_file():
        raise BadConfig(f"no such run report: {path}")
    record, _ = run_report.read_file(path)
    workspace = RunPaths(data, record.run)
    name = ledger.id_of(record)
    recorded = {
        ledger.id_of(replace(item, kind=record.kind)) for item in ledger.read(workspace.ledger)
    }
    evidence.keep(workspace, record, {file: path.with_name(file) for file in evidence.MEASURED})
    if name not in recorded:
        ledger.append(workspace.ledger, record)
    state = "already in" if name in recorded else "added to"
    print(f"{state} the ledger: {name[:12]} of {record.run}")
    return {"imported": name}


def summarize_table(path: Path, counts: Mapping[str, int]) -> dict[str, Any]:
    """Print the summary of a table of runs: gaps, contaminated scores, noise.

    Raises:
        BadConfig: the file does not exist, or `counts` names an unknown split.
        BadData: a column, a score or the size of a split is missing or wrong.
    """
    rows = run_table.read_runs(path, counts)
    print(run_table_summary.text(rows, path.as_posix()))
    return {"table": path.as_posix(), **run_table_summary.summary(rows)}


def _find_cv(record: Evidence, records: Sequence[Evidence]) -> Evidence | None:
    """Return the CV of a record's adapter: the record, or the newest CV in the ledger."""
    if record.kind == "cv":
        return record
    cvs = [
        item
        for item in records
        if item.kind == "cv" and ledger.is_same_model(item.layers, record.layers)
    ]
    return cvs[-1] if cvs else None


def _raise_or_return(result: dict[str, Any], error: ResultsDiffer | None) -> dict[str, Any]:
    """Return the result, or raise the error with the result as a note."""
    if error is None:
        return result
    error.add_note(canonical(result))
    raise error
