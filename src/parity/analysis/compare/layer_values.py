"""The layers in the order in which one decides the next, and what each side says of them."""

from typing import Any

from parity.analysis.compare.evidence_record import EvidenceRecord

SOFT = ("packages", "precision", "device", "budget")
"""Layers that may differ: they are harmless where embeddings agree within rounding."""

ORDER = (
    *("data", "corpus", "split", "lineage", "base", "adapter", "template", "examples"),
    *("texts", "tokens", *SOFT, "embeddings", "ranking", "submission", "metric", "score"),
)

_DECIDED_BY: dict[str, tuple[str, ...]] = {
    "corpus": ("data",),
    "split": ("data",),
    "lineage": ("split",),
    "adapter": ("base", "lineage"),
    "examples": ("data", "split"),
    "texts": ("data", "template", "examples"),
    "tokens": ("texts", "base"),
    "embeddings": ("corpus", "tokens", "adapter", *SOFT),
    "ranking": ("embeddings",),
    "submission": ("data", "ranking"),
    "metric": ("split",),
    "score": ("metric", "ranking"),
}
NONE = "none: the bare base"


def follows(later: str, first: str) -> bool:
    """Return whether a difference in `later` can be nothing but a consequence of one in `first`.

    >>> follows("ranking", "tokens"), follows("metric", "tokens")
    (True, False)
    """
    above = _DECIDED_BY.get(later, ())
    return first in above or any(follows(one, first) for one in above)


def values(side: EvidenceRecord) -> dict[str, str]:
    """Return layer → digest or value, of every layer that the side knows."""
    one = side.evidence
    found = {name: value for name, value in one.layers.items() if value}
    if "base" in found and "adapter" not in found:
        found["adapter"] = NONE
        found.pop("lineage", None)  # weights that were trained on nothing have none to differ in
    found |= {"corpus": one.facts.get("corpus", ""), "budget": _budget(one.facts)}
    found |= {"metric": metric(one.score), "score": _score(one.score)}
    if one.status == "contaminated" and "lineage" in found:
        found["lineage"] += f" {one.status}"
    return {name: value for name, value in found.items() if value}


def packages(side: EvidenceRecord) -> dict[str, str]:
    """Return package → version, Python and the project's source among them."""
    there: dict[str, Any] = side.evidence.facts.get("environment", {})
    if not there:
        return {}
    code = {"python": there["python"], "this project's source": there["code"][:12]}
    return {**there["packages"], **code}


def depth(score: dict[str, Any]) -> int:
    """Return the k of a score, 0 where there is none."""
    named = [int(key[4:]) for key in score if key.startswith("map@")]
    return int(score.get("k", named[0] if named else 0))


def value(score: dict[str, Any]) -> float | None:
    """Return MAP@k over all rows, None where there is no score."""
    k = depth(score)
    told = score.get(f"map@{k}", score.get("all", {}).get(f"map@{k}"))
    found: float | None = told["value"] if isinstance(told, dict) else told
    return found


def metric(score: dict[str, Any]) -> str:
    """Return what a score is a score of, empty where there is none."""
    if not depth(score):
        return ""
    told = f"MAP@{depth(score)}"
    if "all" in score:
        part = score["all"]
        told += f" of {part['rows']} rows, {part['questions']} questions"
    return told


def _score(score: dict[str, Any]) -> str:
    found = value(score)
    return "" if found is None else repr(found)


def _budget(facts: dict[str, Any]) -> str:
    ran, there = facts.get("ran", {}), facts.get("environment", {})
    told = {
        "tokens a pack": ran.get("budget"),
        "processes": ran.get("processes"),
        "threads": there.get("threads"),
    }
    return ", ".join(f"{count} {name}" for name, count in told.items() if count)
