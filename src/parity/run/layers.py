"""The layers of a measurement in causal order: what decides each, and what to do if it differs.

Of two measurements, the first layer that differs is the cause; later ones follow from it. Ledger,
comparison, bundle, rehearsal, kernel check and attribution all use this order, so that they name
the same first difference.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Source = Literal["digest", "facts", "score", "bundle"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a measurement.

    Attributes:
        name: its name in records, messages and JSON.
        decided_by: names of the layers that it is computed from.
        advice: what to do if it is the first that differs.
        fix: the command that the advice needs, verb first; empty if no command helps.
        source: where a record has its value: among its digests, in its facts, in its score, or
            only in the manifest of a bundle.
        is_soft: whether it may differ, as long as embeddings agree within rounding.
        is_pinned: whether it must be equal in every environment that runs a bundle.
        is_identity: whether a score, its CV and its forecast must have it in common.
        is_swappable: whether attribution can swap it from one measurement into another.
        section: section of the run file that sets it; empty if no setting does.
        keys: keys of that section.
    """

    name: str
    decided_by: tuple[str, ...]
    advice: str
    fix: tuple[str, ...] = ()
    source: Source = "digest"
    is_soft: bool = False
    is_pinned: bool = False
    is_identity: bool = False
    is_swappable: bool = False
    section: str = ""
    keys: tuple[str, ...] = ()


_SOFT = ("packages", "precision", "device", "budget")

_LAYERS = (
    Layer("data", (), "Use the same competition files for both and prepare again.", ("prepare",)),
    Layer(
        "corpus",
        ("data",),
        "Use the same corpus table for both and prepare again.",
        ("prepare",),
        source="facts",
        is_pinned=True,
    ),
    Layer(
        "split",
        ("data",),
        "Give both run files the same [split], then prepare and evaluate again.",
        ("prepare",),
    ),
    Layer("lineage", ("split",), "Score an adapter on questions it was not trained on.", ("eval",)),
    Layer(
        "base",
        (),
        "Load the base model that the adapter was trained on and evaluate again.",
        ("eval",),
        is_pinned=True,
        is_identity=True,
        is_swappable=True,
        section="encoder",
        keys=("base", "revision", "num_layers", "pooling"),
    ),
    Layer(
        "adapter",
        ("base", "lineage"),
        "Score or package the intended adapter.",
        ("eval",),
        is_pinned=True,
        is_identity=True,
        is_swappable=True,
    ),
    Layer(
        "template",
        (),
        "Give both run files the same [prompt], then mine, train and evaluate again.",
        ("mine",),
        is_pinned=True,
        is_identity=True,
        is_swappable=True,
        section="prompt",
        keys=(
            *("format", "instruction", "query", "passage"),
            *("query_max_length", "passage_max_length"),
        ),
    ),
    Layer(
        "pool",
        ("data", "split"),
        "Use the same split and train rows for both and prepare again.",
        ("prepare",),
        source="bundle",
        is_pinned=True,
    ),
    Layer(
        "examples",
        ("pool",),
        "Choose few-shot examples by the same rule from the same pool for both.",
        ("prepare",),
        is_pinned=True,
        is_swappable=True,
        section="prompt",
        keys=("examples", "example_count", "example_seed"),
    ),
    Layer(
        "texts",
        ("data", "template", "examples"),
        "Use the same version of this project for both; prompts.py renders all texts.",
        is_pinned=True,
    ),
    Layer(
        "tokens",
        ("texts", "base"),
        "Install the locked versions of tokenizers and transformers.",
        ("doctor",),
        is_pinned=True,
    ),
    Layer("packages", (), "Install the locked versions.", ("doctor",), is_soft=True),
    Layer(
        "precision",
        (),
        "Run both with the same encoder.precision and encoder.quantize.",
        is_soft=True,
        is_swappable=True,
        section="encoder",
        keys=("precision", "quantize"),
    ),
    Layer(
        "device",
        (),
        "Run both with the same encoder.device.",
        is_soft=True,
        is_swappable=True,
        section="encoder",
        keys=("device",),
    ),
    Layer(
        "budget",
        (),
        "Run both with the same encoder.token_budget, threads and processes.",
        source="facts",
        is_soft=True,
        is_swappable=True,
        section="encoder",
        keys=("token_budget", "attention", "parallelism"),
    ),
    Layer(
        "embeddings",
        ("corpus", "tokens", "adapter", *_SOFT),
        "Check that the adapter reloads on its base; training does that at its end.",
        ("train",),
    ),
    Layer("ranking", ("embeddings",), "Rank both again over the same corpus.", ("eval",)),
    Layer(
        "submission",
        ("data", "ranking"),
        "Write the submission again from one ranking, each row once.",
        ("predict",),
    ),
    Layer(
        "metric",
        ("split",),
        "Score both at the same k and on the same rows.",
        ("eval",),
        source="score",
    ),
    Layer(
        "score",
        ("metric", "ranking"),
        "Compare the two scores on the same rows (eval with --against) and read the lines above.",
        source="score",
    ),
)

BY_NAME = {layer.name: layer for layer in _LAYERS}
"""Layer by name, in causal order."""
ORDER = tuple(BY_NAME)
"""Names of all layers, causes first."""
RECORDED = tuple(layer.name for layer in _LAYERS if layer.source == "digest")
"""Layers among the digests of an evidence record."""
COMPARED = tuple(layer.name for layer in _LAYERS if layer.source != "bundle")
"""Layers that two evidence records can be compared by."""
SOFT = tuple(layer.name for layer in _LAYERS if layer.is_soft)
"""Layers that may differ; harmless as long as embeddings agree within rounding."""
PINNED = tuple(layer.name for layer in _LAYERS if layer.is_pinned)
"""Layers that a bundle fixes; the others depend on hardware and libraries."""
EXACT = tuple(name for name in PINNED if name in RECORDED)
"""Pinned layers of an evidence record: equal wherever the same bundle runs."""
IDENTITY = tuple(layer.name for layer in _LAYERS if layer.is_identity)
"""Layers that a score, its CV and its forecast have in common."""
SWAPPABLE = tuple(layer.name for layer in _LAYERS if layer.is_swappable)
"""Layers that attribution can swap."""


def differences(
    a: Mapping[str, str],
    b: Mapping[str, str],
    names: Iterable[str] = RECORDED,
    *,
    with_unknown: bool = False,
) -> list[str]:
    """Return the layers that differ between two measurements, causes first.

    >>> differences({"template": "x", "base": "1"}, {"template": "y", "base": "2"})
    ['base', 'template']

    Args:
        a: layer → digest or value; missing or empty if unknown.
        b: the same of the other measurement.
        names: layers to compare.
        with_unknown: whether a value that only one side knows is a difference.
    """
    compared = frozenset(names)
    pairs = ((name, a.get(name, ""), b.get(name, "")) for name in ORDER if name in compared)
    return [name for name, x, y in pairs if x != y and (with_unknown or (x and y))]


def follows(later: str, first: str) -> bool:
    """Return whether a difference in `later` can be a consequence of one in `first`.

    >>> follows("ranking", "tokens"), follows("metric", "tokens")
    (True, False)
    """
    causes = BY_NAME[later].decided_by
    return first in causes or any(follows(cause, first) for cause in causes)
