"""12. Two records of evidence → the first layer that differs, or that none does."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.analysis.compare import conclusion, layer_values, leaderboard_gap
from parity.analysis.compare.evidence_record import EvidenceRecord
from benchmarks.run_log import log, log_text
from parity.deploy.kernel import run_report
from parity.pipeline import dag, evidence, evidence_lookup
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage import stage_context
from parity.run import files, ledger
from parity.run.digest import canonical
from parity.run.errors import BadConfig, ResultsDiffer, StaleInput
from parity.run.experiment import Run, data_folder
from parity.run.ledger import Evidence
from parity.run.paths import RunPaths

STAGE, VERDICT = "reconcile", "verdict.json"


def reconcile(
    named: Sequence[str], *, imported: Path | None = None, with_text: bool = False
) -> dict[str, Any]:
    """Compare two records, or a score with a number, and tell the first layer that differs.

    Args:
        named: two sides, the second may be a number; or the .csv of a log of runs alone. None
            where only `imported` is wanted.
        imported: a run_report.json whose evidence is added to the ledger first.
        with_text: show texts of the competition where they differ.

    Returns:
        The verdict as plain values.

    Raises:
        Different: they differ by more than noise.
        BadConfig: a side is no record, or there are too few or too many.
    """
    data = data_folder()
    told = bring_in(imported, data) if imported else {}
    if not named:
        return told
    if len(named) == 1 and named[0].endswith(".csv"):
        return told | logged(Path(named[0]))
    if len(named) != 2:
        raise BadConfig(f"want two sides, found {len(named)}; invoke reconcile A B")
    records = ledger.read(RunPaths(data, "").ledger)
    a = evidence_lookup.find(named[0], data, records)
    if evidence_lookup.NUMBER.fullmatch(named[1]):
        found, odd = against(a, float(named[1]), records)
    else:
        b = evidence_lookup.find(named[1], data, records)
        found, odd = compare(a, b, data, records, with_text=with_text)
    return _refused(told | found, odd)


def latest(run: Run, *, with_text: bool = False) -> dict[str, Any]:
    """Compare a run's newest CV with the newest record further on its way, then with its score.

    Where nothing is held out there is no CV, and the rehearsal is compared. The stage is done
    whatever the verdict: what it found stands in the story until further evidence comes.

    Raises:
        Different: they differ by more than noise.
        StaleInput: what it compares is not there, or stale.
    """
    found = StageGraph().compared(run)
    with stage_context(run, STAGE, inputs=dag.ids(found)) as work:
        records = ledger.read(run.workspace.ledger)
        a, b = _ends(run, found, records)
        told, odd = compare(a, b, run.workspace.data, records, with_text=with_text)
        number = (
            layer_values.value(found["public"].score) if {"cv", "public"} <= found.keys() else None
        )
        if number is not None:
            told["public"], unexplained = against(a, number, records)
            odd = odd or unexplained
        files.write_json(work.out(VERDICT), told)
        work.facts = {"verdict": odd or told["line"]}
    return _refused(told, odd)


def _ends(
    run: Run, found: Mapping[str, Evidence], records: Sequence[Evidence]
) -> list[EvidenceRecord]:
    """Return the first and the last step of a run's way.

    Raises:
        StaleInput: the ledger has lost what a finished stage had put there.
    """
    for stage, _ in dag.needs(run, STAGE):
        if evidence_lookup.KINDS[stage] not in found:
            raise StaleInput(f"no evidence of {stage} yet; run: {run.command(stage)}")
    return evidence_lookup.ends(found, run.workspace.data, records)


def compare(
    a: EvidenceRecord,
    b: EvidenceRecord,
    data: Path,
    records: Sequence[Evidence],
    *,
    with_text: bool,
) -> tuple[dict[str, Any], str]:
    """Print what two sides have in common; return it, and a line where it is more than noise."""
    known = evidence_lookup.known(a, b, data, records, with_text=with_text)
    found = conclusion.conclude(a, b, known)
    print(conclusion.text(found, a, b))
    told = {**found.as_json(), "line": found.line, "a": a.id, "b": b.id}
    return told, f"{found.line}; next: {found.next}" if found.layer else ""


def against(
    side: EvidenceRecord, number: float, records: Sequence[Evidence]
) -> tuple[dict[str, Any], str]:
    """Print whether a number is what the CV of this adapter leads one to expect.

    Returns:
        What was found, and a line where neither sampling nor the unseen share explains it.

    Raises:
        BadConfig: there is no CV of this adapter.
    """
    scored = _scored(side.evidence, records)
    scores = conclusion.whole(EvidenceRecord(scored)) if scored else None
    if scored is None or scores is None:
        raise BadConfig(f"{side.name}: no CV of its adapter in the ledger; run: invoke eval")
    found = leaderboard_gap.explain_gap(scores, number)
    measured = {
        record.kind
        for record in records
        if record.layers.get("adapter") == scored.layers.get("adapter") and record.run == scored.run
    }
    lines = list(found.told)
    if scored.status == "contaminated":
        lines.append("the CV is contaminated: it was scored on rows its adapter was trained on")
    if found.cause == "neither":
        lines += ["what could still be wrong:", *leaderboard_gap.remaining(scored.layers, measured)]
    print("\n".join([f"{EvidenceRecord(scored).name} against {number:g}", *lines]))
    told = {"verdict": found.cause, "told": lines, "a": side.id, "number": number}
    bad = found.cause == "neither"
    return told, f"different: {found.told[-1]}; next: the lines above" if bad else ""


def bring_in(path: Path, data: Path) -> dict[str, Any]:
    """Add the evidence of a run_report.json to the ledger, with what lies beside it; once.

    Raises:
        BadConfig: there is no such file.
        BadData: it is no report.
    """
    if not path.is_file():
        raise BadConfig(f"{path}: no such file; invoke reconcile --import run_report.json")
    found, _ = run_report.read_file(path)
    place = RunPaths(data, found.run)
    name = ledger.id_of(found)
    known = {ledger.id_of(replace(one, kind=found.kind)) for one in ledger.read(place.ledger)}
    evidence.keep(place, found, {one: path.with_name(one) for one in evidence.MEASURED})
    if name not in known:
        ledger.append(place.ledger, found)
    print(f"{'already in' if name in known else 'added to'} the ledger: {name[:12]} of {found.run}")
    return {"imported": name}


def logged(path: Path) -> dict[str, Any]:
    """Print what a table of runs shows by itself.

    Raises:
        BadData: it is no such table.
        BadConfig: it is not there.
    """
    if not path.is_file():
        raise BadConfig(f"{path}: no such file; want a table of runs, such as the golden log")
    rows = log.read(path)
    print(log_text.text(rows, path.as_posix()))
    return {
        "log": path.as_posix(),
        "rows": len(rows),
        "pairs": len(log.pairs(rows)),
        "contaminated": [one.name for one, _, _ in log.excess(rows)],
        "broken": [one.name for one, _ in log.broken(rows)],
    }


def _scored(one: Evidence, records: Sequence[Evidence]) -> Evidence | None:
    """Return the CV of a record's adapter: itself, or the newest in the ledger."""
    if one.kind == "cv":
        return one
    found = [
        record
        for record in records
        if record.kind == "cv" and ledger.same(record.layers, one.layers)
    ]
    return found[-1] if found else None


def _refused(told: dict[str, Any], odd: str) -> dict[str, Any]:
    """Return what was told, unless a line says that it is more than noise."""
    if not odd:
        return told
    error = ResultsDiffer(odd)
    error.add_note(canonical(told))
    raise error
