"""Compare two records layer by layer: the first difference, what follows from it, what to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from parity.analysis.compare import diff, layer_diffs, layer_values, leaderboard_gap
from parity.analysis.compare.evidence_record import Artifacts, EvidenceRecord
from parity.analysis.compare.layer_diffs import LayerDiff, State
from parity.competition.scoring.metrics import Scores
from parity.run import layers, ledger
from parity.run.progress import wrap_lines

Result = Literal["same", "same within numeric noise", "different"]
_STATES = {"equal": "equal", "unknown": "not known on both sides", "near": "differs, harmless"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The comparison of one layer.

    Attributes:
        layer: name of the layer.
        state: `near` is a difference that is harmless or within noise.
        role: role of a difference: `first`, `consequence` or `independent`; empty otherwise.
        lines: details in terms of the layer.
    """

    layer: str
    state: State
    role: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The comparison of two records.

    Attributes:
        result: `same`, `same within numeric noise` or `different`.
        layer: first layer that differs; empty if no layer differs.
        advice: what to do about it; empty if no layer differs.
        fix: command that the advice needs, verb first; empty if no command helps.
        bound: largest allowed distance of a cosine from 1, None if nothing had to be measured.
        findings: all layers in causal order.
    """

    result: Result
    layer: str
    advice: str
    fix: tuple[str, ...]
    bound: float | None
    findings: tuple[Finding, ...]

    @property
    def line(self) -> str:
        """Return the conclusion in one line."""
        if self.result == "different":
            lines = self.of(self.layer).lines
            return f"first difference: {self.layer} ({lines[0] if lines else 'digests differ'})"
        score = self.of("score")
        gap = f"; scores: {score.lines[-1]}" if score.state == "near" and score.lines else ""
        if self.bound is None:
            return f"{self.result}{gap}"
        noise = f"cosines at least {1 - self.bound:g}, swaps of near ties only"
        return f"{self.result} ({noise}){gap}"

    def of(self, layer: str) -> Finding:
        """Return the finding of one layer."""
        return next(finding for finding in self.findings if finding.layer == layer)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "result": self.result,
            "layer": self.layer,
            "advice": self.advice,
            "fix": list(self.fix),
            "bound": self.bound,
            "layers": [
                {
                    "layer": finding.layer,
                    "state": finding.state,
                    "role": finding.role,
                    "lines": list(finding.lines),
                }
                for finding in self.findings
            ],
        }


def conclude(a: EvidenceRecord, b: EvidenceRecord, artifacts: Artifacts) -> Conclusion:
    """Compare two records in causal order and find the first layer that differs beyond noise."""
    measured = _measured_diffs(a, b, artifacts)
    diffs = {
        name: measured[name] if name in measured else _input_diff(name, a, b, artifacts)
        for name in layers.COMPARED
    }
    _excuse_soft(diffs, a, b)
    first = next((name for name, diff_ in diffs.items() if diff_.state == "differs"), "")
    findings = tuple(
        Finding(name, diff_.state, _role(name, diff_.state, first), diff_.lines)
        for name, diff_ in diffs.items()
    )
    bound = _bound(a, b, measured)
    if first:
        layer = layers.BY_NAME[first]
        return Conclusion("different", first, layer.advice, layer.fix, bound, findings)
    if any(measured[name].state == "near" for name in ("embeddings", "ranking", "submission")):
        return Conclusion("same within numeric noise", "", "", (), bound, findings)
    return Conclusion("same", "", "", (), None, findings)


def text(conclusion: Conclusion, a: EvidenceRecord, b: EvidenceRecord) -> str:
    """Return the conclusion for a terminal of 80 columns."""
    lines = [f"{letter}  {record.short}  {record.name}" for letter, record in (("A", a), ("B", b))]
    lines += ["", *wrap_lines(conclusion.line)]
    if conclusion.layer:
        details = conclusion.of(conclusion.layer).lines[1:]
        lines += [line for detail in details for line in wrap_lines(detail, "  ")]
        lines += wrap_lines(f"next: {conclusion.advice}")
    lines.append("")
    for finding in conclusion.findings:
        lines.append(f"  {finding.layer:<12}{_state(finding)}".rstrip())
        if finding.state != "equal" and finding.layer != conclusion.layer:
            lines += [line for detail in finding.lines for line in wrap_lines(detail, " " * 14)]
    return "\n".join(lines)


def cv_scores(record: EvidenceRecord) -> Scores | None:
    """Return the scores of a CV, None if the record has no scores by slice."""
    score: Mapping[str, Any] = record.evidence.score
    return Scores.from_json(score) if "all" in score else None


def _measured_diffs(
    a: EvidenceRecord, b: EvidenceRecord, artifacts: Artifacts
) -> dict[str, LayerDiff]:
    """Compare the layers that a measurement computes, where rounding is allowed."""
    embeddings = layer_diffs.embeddings(a, b)
    ranking = layer_diffs.ranking(a, b, artifacts)
    has_change = "differs" in (embeddings.state, ranking.state)
    noise: State = "differs" if has_change else embeddings.state
    return {
        "embeddings": embeddings,
        "ranking": ranking,
        "submission": layer_diffs.submission(a, b, noise),
        "metric": layer_diffs.metric(a, b),
        "score": _score(a, b, artifacts, noise),
    }


def _score(a: EvidenceRecord, b: EvidenceRecord, artifacts: Artifacts, noise: State) -> LayerDiff:
    """Compare scores of the same rows, or a CV with a leaderboard score."""
    for cv, other in ((a, b), (b, a)):
        if cv.evidence.kind == "cv" and other.evidence.kind in ledger.BOARDS:
            number = layer_values.value(other.evidence.score)
            scores = cv_scores(cv)
            if number is None or scores is None:
                return LayerDiff("unknown")
            gap = leaderboard_gap.explain_gap(scores, number)
            return LayerDiff("differs" if gap.cause == "neither" else "near", gap.lines)
    if {a.evidence.kind, b.evidence.kind} == set(ledger.BOARDS):
        return LayerDiff("unknown", ("public and private score different rows",))
    return layer_diffs.score(a, b, artifacts, noise)


def _input_diff(
    layer: str, a: EvidenceRecord, b: EvidenceRecord, artifacts: Artifacts
) -> LayerDiff:
    """Compare a layer that is an input of the measurement, by its value."""
    x, y = layer_values.values(a).get(layer), layer_values.values(b).get(layer)
    if x is None or y is None:
        return LayerDiff("unknown")
    differs = x != y
    if layer == "packages":  # the digest covers the model's packages only
        differs = differs or bool(diff.packages_that_differ(a, b))
    if not differs:
        return LayerDiff("equal")
    return LayerDiff("differs", tuple(diff.describe(layer, a, b, artifacts)))


def _excuse_soft(diffs: dict[str, LayerDiff], a: EvidenceRecord, b: EvidenceRecord) -> None:
    """Mark differences of soft layers as harmless if embeddings and rankings agree."""
    results = [diffs[name].state for name in ("embeddings", "ranking")]
    for name in layers.SOFT:
        if diffs[name].state != "differs":
            continue
        lines = diffs[name].lines
        if name == "packages" and not _has_model_package(a, b):
            diffs[name] = LayerDiff("near", (*lines, "harmless: no package affects embeddings"))
        elif set(results) == {"unknown"}:
            diffs[name] = LayerDiff("unknown", (*lines, "the effect was not measured"))
        elif diffs["embeddings"].is_conclusive:
            diffs[name] = LayerDiff("near", (*lines, "not the cause, as the embeddings show"))
        elif "differs" not in results:
            reason = "harmless: embeddings agree within the bound"
            diffs[name] = LayerDiff("near", (*lines, reason))


def _has_model_package(a: EvidenceRecord, b: EvidenceRecord) -> bool:
    names = diff.packages_that_differ(a, b)
    return not names or any(name in diff.MODEL_PACKAGES for name in names)


def _bound(a: EvidenceRecord, b: EvidenceRecord, diffs: dict[str, LayerDiff]) -> float | None:
    is_measured = diffs["embeddings"].state not in ("equal", "unknown")
    return layer_diffs.bound(a, b) if is_measured else None


def _role(layer: str, state: State, first: str) -> str:
    if state != "differs":
        return ""
    if layer == first:
        return "first"
    return "consequence" if layers.follows(layer, first) else "independent"


def _state(finding: Finding) -> str:
    if finding.state != "differs":
        return _STATES[finding.state]
    return "DIFFERS FIRST" if finding.role == "first" else f"differs ({finding.role})"
