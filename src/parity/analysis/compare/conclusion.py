"""Two records → the first layer that differs and what follows from it; three verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from parity.analysis.compare import diff, layer_diffs, layer_values, leaderboard_gap
from parity.analysis.compare.evidence_record import Artifacts, EvidenceRecord
from parity.analysis.compare.layer_diffs import LayerDiff, State
from parity.competition.scoring.metrics import Scores
from parity.run import ledger
from parity.run.progress import wrapped

Said = Literal["same", "same within numeric noise", "different"]
_NEXT = {
    "data": "attach or read the same files of the competition, then: invoke prepare",
    "corpus": "attach or read the same misconception_mapping.csv, then: invoke prepare",
    "split": "give both run files one [split], then: invoke prepare and invoke eval",
    "lineage": "score an adapter on questions it was not trained on: invoke eval",
    "base": "load the base that the adapter names, then: invoke eval",
    "adapter": "score the adapter that was meant: invoke eval --adapter, or invoke package",
    "template": "give both run files one [prompt], then: invoke mine and what follows",
    "examples": "use one pool and policy of examples for both: invoke prepare, invoke eval",
    "texts": "one prompts.py writes all texts: bring both to one version of this project",
    "tokens": "install the locked versions of tokenizers and transformers: invoke doctor",
    "packages": "install the locked versions: invoke doctor",
    "precision": "compare like with like: --set encoder.precision and encoder.quantize",
    "device": "run both on one device: --set encoder.device",
    "budget": "run both with one --set encoder.token_budget, threads and processes",
    "embeddings": "reload the adapter beside its base: invoke train checks the round trip",
    "ranking": "rank again from one index of the corpus: invoke eval",
    "submission": "write it anew from one ranking, every row once: invoke predict",
    "metric": "score both at one k on the same rows: invoke eval",
    "score": "invoke eval --against the other run file, and the lines above",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One layer of the walk.

    Attributes:
        layer: its name.
        state: `near` is a difference that is harmless or within noise.
        role: of a difference: `first`, `consequence` or `independent`; empty otherwise.
        told: lines in the layer's own terms.
    """

    layer: str
    state: State
    role: str = ""
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What two records have in common.

    Attributes:
        said: one of three.
        layer: the first that differs; empty where none does.
        next: what to do then.
        bound: how far below 1 a cosine may lie, None where nothing had to be measured.
        findings: every layer, in order.
    """

    said: Said
    layer: str
    next: str
    bound: float | None
    findings: tuple[Finding, ...]

    @property
    def line(self) -> str:
        """The verdict in one line."""
        if self.said == "different":
            told = self.of(self.layer).told
            return f"different because {self.layer}: {told[0] if told else 'digests differ'}"
        told = self.of("score").told if self.of("score").state == "near" else ()
        gap = f"; scores: {told[-1]}" if told else ""
        if self.bound is not None:
            bound = f"cosines at least {1 - self.bound:g}, swaps of near ties only"
            return f"{self.said} ({bound}){gap}"
        return f"{self.said}{gap}"

    def of(self, layer: str) -> Finding:
        """Return what was found of one layer."""
        return next(finding for finding in self.findings if finding.layer == layer)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "verdict": self.said,
            "layer": self.layer,
            "next": self.next,
            "bound": self.bound,
            "layers": [
                {
                    "layer": finding.layer,
                    "state": finding.state,
                    "role": finding.role,
                    "told": list(finding.told),
                }
                for finding in self.findings
            ],
        }


def conclude(a: EvidenceRecord, b: EvidenceRecord, known: Artifacts) -> Conclusion:
    """Walk the layers in order and name the first that differs by more than noise."""
    found = _measure(a, b, known)
    walked = {
        name: found[name] if name in found else _given(name, a, b, known)
        for name in layer_values.ORDER
    }
    _weigh_soft(walked, a, b)
    first = next((name for name, one in walked.items() if one.state == "differs"), "")
    findings = tuple(
        Finding(name, one.state, _role(name, one.state, first), one.told)
        for name, one in walked.items()
    )
    if first:
        return Conclusion("different", first, _NEXT[first], _bound(a, b, found), findings)
    noisy = any(found[name].state == "near" for name in ("embeddings", "ranking", "submission"))
    said: Said = "same within numeric noise" if noisy else "same"
    return Conclusion(said, "", "", _bound(a, b, found) if noisy else None, findings)


def text(verdict: Conclusion, a: EvidenceRecord, b: EvidenceRecord) -> str:
    """Return the verdict for a terminal of 80 columns."""
    lines = [f"{letter}  {one.short}  {one.name}" for letter, one in (("A", a), ("B", b))]
    lines += ["", *wrapped(verdict.line)]
    if verdict.layer:
        told = verdict.of(verdict.layer).told[1:]
        lines += [line for one in told for line in wrapped(one, "  ")]
        lines += wrapped(f"next: {verdict.next}")
    lines.append("")
    for finding in verdict.findings:
        lines.append(f"  {finding.layer:<12}{_state(finding)}".rstrip())
        if finding.state != "equal" and finding.layer != verdict.layer:
            lines += [line for said in finding.told for line in wrapped(said, " " * 14)]
    return "\n".join(lines)


def _measure(a: EvidenceRecord, b: EvidenceRecord, known: Artifacts) -> dict[str, LayerDiff]:
    near = layer_diffs.embeddings(a, b)
    ranked = layer_diffs.ranking(a, b, known)
    states = {near.state, ranked.state}
    noise: State = "differs" if "differs" in states else near.state
    found = {"embeddings": near, "ranking": ranked}
    found["submission"] = layer_diffs.submission(a, b, noise)
    found["metric"] = layer_diffs.metric(a, b)
    found["score"] = _score(a, b, known, noise)
    return found


def _score(a: EvidenceRecord, b: EvidenceRecord, known: Artifacts, noise: State) -> LayerDiff:
    """Compare scores of the same rows, or a CV with the number of a leaderboard."""
    kinds = [one.evidence.kind for one in (a, b)]
    for cv, other in ((a, b), (b, a)):
        if cv.evidence.kind == "cv" and other.evidence.kind in ledger.BOARDS:
            number = layer_values.value(other.evidence.score)
            scores = whole(cv)
            if number is None or scores is None:
                return LayerDiff("unknown")
            judged = leaderboard_gap.explain_gap(scores, number)
            return LayerDiff("differs" if judged.cause == "neither" else "near", judged.told)
    if set(kinds) == set(ledger.BOARDS):
        return LayerDiff("unknown", ("public and private are scores of other rows",))
    return layer_diffs.score(a, b, known, noise)


def whole(side: EvidenceRecord) -> Scores | None:
    """Return the scores of a CV, None where the record holds none with slices."""
    record: Mapping[str, Any] = side.evidence.score
    return Scores.from_json(record) if "all" in record else None


def _given(layer: str, a: EvidenceRecord, b: EvidenceRecord, known: Artifacts) -> LayerDiff:
    """Compare a layer that was given, not computed."""
    mine, theirs = layer_values.values(a).get(layer), layer_values.values(b).get(layer)
    if mine is None or theirs is None:
        return LayerDiff("unknown")
    if layer == "packages":  # the digest has the model's alone
        differ = mine != theirs or bool(diff.packages_that_differ(a, b))
    else:
        differ = mine != theirs
    if not differ:
        return LayerDiff("equal")
    return LayerDiff("differs", tuple(diff.told(layer, a, b, known)))


def _weigh_soft(walked: dict[str, LayerDiff], a: EvidenceRecord, b: EvidenceRecord) -> None:
    """Let off the layers that may differ, where embeddings and rankings agree within rounding."""
    results = [walked[name].state for name in ("embeddings", "ranking")]
    for name in layer_values.SOFT:
        one = walked[name]
        if one.state != "differs":
            continue
        if name == "packages" and not _matters(a, b):
            walked[name] = LayerDiff(
                "near", (*one.told, "harmless: none of them moves an embedding")
            )
        elif set(results) == {"unknown"}:
            walked[name] = LayerDiff("unknown", (*one.told, "whether it matters was not measured"))
        elif walked["embeddings"].sure:
            walked[name] = LayerDiff(
                "near", (*one.told, "not the cause, which the embeddings show")
            )
        elif "differs" not in results:
            walked[name] = LayerDiff(
                "near", (*one.told, "harmless: embeddings agree within the bound")
            )


def _matters(a: EvidenceRecord, b: EvidenceRecord) -> bool:
    odd = diff.packages_that_differ(a, b)
    return not odd or any(name in diff.MATTERS for name in odd)


def _bound(a: EvidenceRecord, b: EvidenceRecord, found: dict[str, LayerDiff]) -> float | None:
    return None if found["embeddings"].state in ("equal", "unknown") else layer_diffs.bound(a, b)


def _role(layer: str, state: State, first: str) -> str:
    if state != "differs":
        return ""
    if layer == first:
        return "first"
    return "consequence" if layer_values.follows(layer, first) else "independent"


def _state(one: Finding) -> str:
    told = {"equal": "equal", "unknown": "not known on both sides", "near": "differs, harmless"}
    if one.state != "differs":
        return told[one.state]
    return "DIFFERS FIRST" if one.role == "first" else f"differs ({one.role})"
