"""Ledger, comparison, bundle, kernel check, rehearsal and attribution name one first difference."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from analysis.records import ARTIFACTS, METRIC, PROMPT, Setup, measure

from parity.analysis.compare import conclusion
from parity.analysis.compare.evidence_record import EvidenceRecord
from parity.deploy.bundle.bundle import Bundle
from parity.deploy.kernel import image_comparison
from parity.deploy.kernel.image_comparison import RunOutputs
from parity.pipeline import replay
from parity.pipeline.command_cores import attribute
from parity.pipeline.replay import Replay
from parity.pipeline.stage_cores import rehearse
from parity.run import layers, ledger
from parity.run.config import run_file
from parity.run.errors import Mismatch
from parity.run.paths import RunPaths

TEMPLATE = "{wrong}\n{question}"
A = measure(Setup())
B = measure(Setup(base=3, prompt=PROMPT.model_copy(update={"query": TEMPLATE})))
"""Differs from A in base and template, and in what follows from them."""
FIRST = "base"


def outputs(record: EvidenceRecord) -> RunOutputs:
    assert record.vectors is not None
    assert record.probe is not None
    assert record.submission is not None
    return RunOutputs(record.evidence.layers, record.vectors, record.probe, record.submission)


def build_replay(base: str, query: str) -> Any:
    config = run_file.build(
        {"name": "small", "encoder": {"base": base}, "prompt": {"query": query}}, "test"
    )
    paths = RunPaths(Path("data"), "small")
    return Replay(config, paths, None, "", None)  # type: ignore[arg-type]  # nothing is scored


def test_the_order_names_the_base() -> None:
    names = layers.differences(A.evidence.layers, B.evidence.layers)
    assert names[0] == FIRST
    assert "template" in names


def test_the_ledger_names_the_base() -> None:
    digests = zip(
        ledger.identity(A.evidence.layers), ledger.identity(B.evidence.layers), strict=True
    )
    pairs = zip(layers.IDENTITY, digests, strict=True)
    assert next(name for name, (a, b) in pairs if a != b) == FIRST
    assert list(ledger.identity(A.evidence.layers)) == [
        A.evidence.layers[name] for name in layers.IDENTITY
    ]


def test_the_comparison_names_the_base() -> None:
    result = conclusion.conclude(A, B, ARTIFACTS)
    assert result.layer == FIRST
    assert result.of("template").role == "independent"


def test_the_bundle_names_the_base() -> None:
    bundle = Bundle(Path(), "small", 0, run_file.Config(name="small"), A.evidence.layers, "")
    with pytest.raises(Mismatch, match=rf"layer {FIRST}\b"):
        bundle.check(B.evidence.layers)


def test_the_kernel_check_names_the_base() -> None:
    assert image_comparison.compare(outputs(A), outputs(B), METRIC).unequal == FIRST


def test_the_rehearsal_names_the_base() -> None:
    line = rehearse.describe_layers(A.evidence.layers, B.evidence.layers, "rehearsal")
    assert line.endswith(f"first that differs: {FIRST}")


def test_attribution_swaps_the_base_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "score", lambda *_: {})
    a, b = build_replay("pypi:small", PROMPT.query), build_replay("pypi:other", TEMPLATE)
    swaps = list(attribute._swaps(a, b, METRIC, lambda _: None))
    assert [swap.layer for swap in swaps] == ["", FIRST, "template"]


@pytest.mark.parametrize("layer", layers.EXACT)
def test_all_of_them_agree_on_every_pinned_layer(layer: str) -> None:
    """Two records that differ in this layer and in all later ones."""
    later = layers.ORDER[layers.ORDER.index(layer) :]
    digests = {
        name: f"{value} changed" if name in later else value
        for name, value in A.evidence.layers.items()
    }
    b = EvidenceRecord(replace(A.evidence, layers=digests))
    bundle = Bundle(Path(), "small", 0, run_file.Config(name="small"), A.evidence.layers, "")
    assert layers.differences(A.evidence.layers, digests)[0] == layer
    assert conclusion.conclude(EvidenceRecord(A.evidence), b, ARTIFACTS).layer == layer
    assert (
        image_comparison.compare(outputs(A), replace(outputs(A), layers=digests), METRIC).unequal
        == layer
    )
    with pytest.raises(Mismatch, match=rf"layer {layer}\b"):
        bundle.check(digests)
