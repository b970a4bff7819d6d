"""Values of a record's layers, as a comparison needs them: digests, packages, metric and score."""

from typing import Any

from parity.analysis.compare.evidence_record import EvidenceRecord
from parity.competition.scoring.row_metrics import metric_of

NO_ADAPTER = "none (base model)"
"""Value of the layer `adapter` of a base model without one."""


def values(record: EvidenceRecord) -> dict[str, str]:
    """Return layer → digest or value, of every layer that the record knows."""
    evidence = record.evidence
    layers = {name: value for name, value in evidence.layers.items() if value}
    if "base" in layers and "adapter" not in layers:
        layers["adapter"] = NO_ADAPTER
        layers.pop("lineage", None)  # a base model has no training rows to differ in
    layers |= {"corpus": evidence.facts.get("corpus", ""), "budget": _budget(evidence.facts)}
    layers |= {"metric": metric(evidence.score), "score": _score(evidence.score)}
    if evidence.status == "contaminated" and "lineage" in layers:
        layers["lineage"] += f" {evidence.status}"
    return {name: value for name, value in layers.items() if value}


def packages(record: EvidenceRecord) -> dict[str, str]:
    """Return package → version, with Python and this project's source among them."""
    environment: dict[str, Any] = record.evidence.facts.get("environment", {})
    if not environment:
        return {}
    code = {
        "python": environment["python"],
        "this project's source": environment["code"][:12],
    }
    return {**environment["packages"], **code}


def value(score: dict[str, Any]) -> float | None:
    """Return the mean of a score's metric over all rows, None if there is no score."""
    if not score:
        return None
    key = metric_of(score).key
    entry = score.get(key, score.get("all", {}).get(key))
    mean: float | None = entry["value"] if isinstance(entry, dict) else entry
    return mean


def metric(score: dict[str, Any]) -> str:
    """Return name and rows of a score's metric, empty if there is no score."""
    if not score:
        return ""
    title = metric_of(score).title
    if "all" not in score:
        return title
    rows = score["all"]
    return f"{title} of {rows['rows']} rows, {rows['questions']} questions"


def _score(score: dict[str, Any]) -> str:
    mean = value(score)
    return "" if mean is None else repr(mean)


def _budget(facts: dict[str, Any]) -> str:
    ran, environment = facts.get("ran", {}), facts.get("environment", {})
    counts = {
        "tokens a pack": ran.get("budget"),
        "processes": ran.get("processes"),
        "threads": environment.get("threads"),
    }
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)
