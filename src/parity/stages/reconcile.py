"""12. Two records of evidence → the first layer that differs, or that none does."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.reconcile import alone, layers, verdict
from parity.reconcile.sides import Side
from parity.run import ledger
from parity.run.digest import canonical
from parity.run.errors import BadConfig, Different, StaleInput
from parity.run.ledger import Evidence
from parity.run.workspace import Workspace
from parity.shipping import report
from parity.stages import evidence, sides
from parity.stages.run import DATA, Run

_NUMBER = re.compile(r"[01]?\.\d+")
_LATER = ("rehearsal", "image", "kernel")
"""What a CV is compared with where nobody says; the last there is."""


def reconcile(
    named: Sequence[str], *, imported: Path | None = None, with_text: bool = False
) -> dict[str, Any]:
    """Compare two records, or a score with a number, and tell the first layer that differs.

    Args:
        named: one or two sides; the second may be a number. None where only `imported` is wanted.
        imported: a run_report.json whose evidence is added to the ledger first.
        with_text: show texts of the competition where they differ.

    Returns:
        The verdict as plain values.

    Raises:
        Different: they differ by more than noise.
        BadConfig: a side is no record, or there are too few or too many.
    """
    data = Path(os.environ.get("PARITY_DATA") or DATA)
    told = bring_in(imported, data) if imported else {}
    if not named:
        return told
    if len(named) != 2:
        raise BadConfig(f"want two sides, found {len(named)}; invoke reconcile A B")
    records = ledger.read(Workspace(data, "").ledger)
    a = sides.find(named[0], data, records)
    if _NUMBER.fullmatch(named[1]):
        return told | against(a, float(named[1]), records)
    return told | compare(
        a, sides.find(named[1], data, records), data, records, with_text=with_text
    )


def latest(run: Run, *, with_text: bool = False) -> dict[str, Any]:
    """Compare a run's newest CV with the newest record further on its way, then with its score.

    Raises:
        Different: they differ by more than noise.
        StaleInput: one of the two is not there yet.
    """
    records = ledger.read(run.workspace.ledger)
    mine = [one for one in records if (one.run, one.round) == (run.config.name, run.round)]
    scored = [one for one in mine if (one.kind, one.label) == ("cv", "best")]
    later = [one for kind in _LATER for one in mine if one.kind == kind]
    if not scored or not later:
        stage = "rehearse" if scored else "eval"
        raise StaleInput(f"no evidence of {stage} yet; run: {run.command(stage)}")
    a, b = (sides.with_artefacts(one[-1], run.workspace.data, records) for one in (scored, later))
    told = compare(a, b, run.workspace.data, records, with_text=with_text)
    public = [one for one in mine if one.kind == "public"]
    number = layers.value(public[-1].score) if public else None
    return told if number is None else told | {"public": against(a, number, records)}


def compare(
    a: Side, b: Side, data: Path, records: Sequence[Evidence], *, with_text: bool
) -> dict[str, Any]:
    """Print what two sides have in common and return it as plain values.

    Raises:
        Different: they differ by more than noise.
    """
    known = sides.known(a, b, data, records, with_text=with_text)
    found = verdict.judge(a, b, known)
    print(verdict.text(found, a, b))
    told = {**found.as_json(), "a": a.id, "b": b.id}
    _refuse(found.line if found.layer else "", found.next, told)
    return told


def against(side: Side, number: float, records: Sequence[Evidence]) -> dict[str, Any]:
    """Print whether a number is what the CV of this adapter leads one to expect.

    Raises:
        Different: neither sampling nor the unseen share explains it.
        BadConfig: there is no CV of this adapter.
    """
    scored = _scored(side.evidence, records)
    scores = verdict.whole(Side(scored)) if scored else None
    if scored is None or scores is None:
        raise BadConfig(f"{side.name}: no CV of its adapter in the ledger; run: invoke eval")
    found = alone.judge(scores, number)
    measured = {
        one.kind
        for one in records
        if one.layers.get("adapter") == scored.layers.get("adapter") and one.run == scored.run
    }
    lines = list(found.told)
    if scored.status == "polluted":
        lines.append("the CV is polluted: it was scored on rows its adapter was trained on")
    if found.cause == "neither":
        lines += ["what could still be wrong:", *alone.remaining(scored.layers, measured)]
    print("\n".join([f"{Side(scored).name} against {number:g}", *lines]))
    told = {"verdict": found.cause, "told": lines, "a": side.id, "number": number}
    bad = found.cause == "neither"
    _refuse(f"different: {found.told[-1]}" if bad else "", "the lines above", told)
    return told


def bring_in(path: Path, data: Path) -> dict[str, Any]:
    """Add the evidence of a run_report.json to the ledger, with what lies beside it; once.

    Raises:
        BadData: it is no report.
    """
    found, _ = report.read_file(path)
    place = Workspace(data, found.run)
    name = ledger.id_of(found)
    known = {ledger.id_of(replace(one, kind=found.kind)) for one in ledger.read(place.ledger)}
    evidence.keep(place, found, {one: path.with_name(one) for one in evidence.MEASURED})
    if name not in known:
        ledger.append(place.ledger, found)
    print(f"{'already in' if name in known else 'added to'} the ledger: {name[:12]} of {found.run}")
    return {"imported": name}


def _scored(one: Evidence, records: Sequence[Evidence]) -> Evidence | None:
    """Return the CV of a record's adapter: itself, or the newest in the ledger."""
    if one.kind == "cv":
        return one
    same = ("adapter", "base", "template")
    found = [
        it
        for it in records
        if it.kind == "cv" and all(it.layers.get(name) == one.layers.get(name) for name in same)
    ]
    return found[-1] if found else None


def _refuse(line: str, then: str, told: dict[str, Any]) -> None:
    if not line:
        return
    error = Different(f"{line}; next: {then}")
    error.add_note(canonical(told))
    raise error
