"""Describe where two records differ within a layer: a setting, a row, a character, a token."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parity.analysis.compare import layer_values
from parity.analysis.compare.evidence_record import Artifacts, EvidenceRecord
from parity.competition.query import unit_of
from parity.run.layers import BY_NAME

_CONTEXT = 24  # characters shown on each side of the first difference
_SHORT = 12  # digits shown of a digest
_MARKS = {"\n": "<newline>", "\t": "<tab>", "\r": "<return>", "\\": "<backslash>", "\xa0": "<nbsp>"}
MODEL_PACKAGES = {
    "torch": "its kernels can round differently",
    "transformers": "reads the model and the tokenizer",
    "tokenizers": "decides token ids",
    "peft": "applies the adapter",
    "bitsandbytes": "quantizes",
    "safetensors": "reads the weights",
    "accelerate": "places the weights",
    "kaggle-parity": "writes prompts, packs and ranks",
    "this project's source": "writes prompts, packs and ranks",
}
"""Package that can change embeddings → how."""


def describe(layer: str, a: EvidenceRecord, b: EvidenceRecord, artifacts: Artifacts) -> list[str]:
    """Return lines on how a layer differs, as far as evidence and artifacts show it."""
    details: dict[str, Callable[[], list[str]]] = {
        "template": lambda: _changed_keys(a, b, BY_NAME["template"].keys),
        "examples": lambda: _examples(a, b),
        "texts": lambda: _texts(a, b, artifacts),
        "tokens": lambda: _tokens(a, b, artifacts),
        "packages": lambda: _packages(a, b),
        "split": lambda: _split_names(a, b),
        "lineage": lambda: _contaminated(a, b),
    }
    lines = details[layer]() if layer in details else []
    if not lines:
        x, y = layer_values.values(a)[layer], layer_values.values(b)[layer]
        lines.append(f"A {_shortened(x)}, B {_shortened(y)}")
    return [*lines, *_other_records(layer, a, b, artifacts)]


def packages_that_differ(a: EvidenceRecord, b: EvidenceRecord) -> dict[str, tuple[str, str]]:
    """Return package → version of A and of B, for those that differ."""
    versions_a, versions_b = layer_values.packages(a), layer_values.packages(b)
    if not versions_b:
        return {}
    return {
        name: (version, versions_b[name])
        for name, version in versions_a.items()
        if name in versions_b and versions_b[name] != version
    }


def marked(text: str) -> str:
    r"""Return `text` with invisible characters spelled out.

    >>> marked("a\\nb\nc")
    'a<backslash>nb<newline>c'
    """
    return "".join(
        _MARKS.get(char, char if char.isprintable() else f"<U+{ord(char):04X}>") for char in text
    )


def character(text: str, position: int) -> str:
    """Return a description of a character that does not reveal letters and digits."""
    if position >= len(text):
        return "the end"
    char = text[position]
    if char.isalnum():
        return "a letter" if char.isalpha() else "a digit"
    return f"{_MARKS.get(char, char if char != ' ' else '<space>')} (U+{ord(char):04X})"


def first_mismatch(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Return the first position at which two sequences differ.

    >>> first_mismatch("abc", "abd"), first_mismatch("ab", "abc")
    (2, 2)
    """
    pairs = enumerate(zip(a, b, strict=False))
    return next((position for position, (x, y) in pairs if x != y), min(len(a), len(b)))


def _shortened(value: str) -> str:
    words = value.split(" ")
    return " ".join(word[:_SHORT] if len(word) == 64 else word for word in words)


def _split_names(a: EvidenceRecord, b: EvidenceRecord) -> list[str]:
    names = [record.evidence.facts.get("split", "") for record in (a, b)]
    return [f"split A {names[0]}, B {names[1]}"] if all(names) else []


def _contaminated(a: EvidenceRecord, b: EvidenceRecord) -> list[str]:
    return [
        f"{letter} was scored on rows its adapter was trained on"
        for letter, record in (("A", a), ("B", b))
        if record.evidence.status == "contaminated"
    ]


def _other_records(
    layer: str, a: EvidenceRecord, b: EvidenceRecord, artifacts: Artifacts
) -> list[str]:
    """Return other records with the same adapter, base or split, which reveal a mix-up."""
    if layer not in ("adapter", "base", "split", "lineage"):
        return []
    lines = [
        line
        for letter, record in (("A", a), ("B", b))
        for line in _same_digest(letter, layer, record, artifacts)
    ]
    adapters = [layer_values.values(record)["adapter"] for record in (a, b)]
    if layer == "base" and layer_values.NO_ADAPTER in adapters:
        lines.append("one of them has no adapter: a merged model? Merge in full precision only")
    return lines


def _same_digest(
    letter: str, layer: str, record: EvidenceRecord, artifacts: Artifacts
) -> list[str]:
    digest = record.evidence.layers.get(layer, "")
    key = (record.evidence.run, record.evidence.round, _model_of(record.evidence.label))
    names = dict.fromkeys(
        f"{other.run}/round-{other.round}/{other.label}"
        for other in artifacts.records
        if digest
        and other.layers.get(layer) == digest
        and other.label != "test"
        and (other.run, other.round, _model_of(other.label)) != key
    )
    return [f"{letter}'s is also that of {', '.join(list(names)[:3])}"] if names else []


def _model_of(label: str) -> str:
    """Return the model of an evaluation's label, `epoch-4` of `epoch-4@bnb4`."""
    return label.partition("@")[0]


def _settings(record: EvidenceRecord) -> Mapping[str, Any]:
    return record.settings or record.evidence.facts.get("prompt", {})


def _changed_keys(a: EvidenceRecord, b: EvidenceRecord, keys: Sequence[str]) -> list[str]:
    """Return lines on prompt keys that differ; templates in full if both run files are known."""
    has_texts = bool(a.settings and b.settings)
    settings_a, settings_b = (
        (record.settings if has_texts else record.evidence.facts.get("prompt", {})) or {}
        for record in (a, b)
    )
    lines = []
    for key in keys:
        x, y = settings_a.get(key), settings_b.get(key)
        if x == y or key not in settings_a or key not in settings_b:
            continue
        if key not in ("instruction", "query", "passage"):
            lines.append(f"prompt.{key}: A {x}, B {y}")
            continue
        lines.append(f"prompt.{key} differs")
        if has_texts:
            lines += _characters(str(x), str(y), with_text=True)
        else:
            lines.append(f"digests A {x}, B {y}")
    return lines


def _examples(a: EvidenceRecord, b: EvidenceRecord) -> list[str]:
    lines = _changed_keys(a, b, BY_NAME["examples"].keys)
    has_same_rule = not lines
    pairs = list(zip(a.rows, b.rows, strict=False))
    differing = [(x, y) for x, y in pairs if x["examples"] != y["examples"]]
    if differing:
        x, y = differing[0]
        lines.append(f"{len(differing)} of {len(pairs)} probe rows; first {x['query_id']}:")
        lines.append(f"A shows {_ids(x['examples'])}, B {_ids(y['examples'])}")
        if has_same_rule:
            lines.append(
                "the settings are the same: examples were drawn again, or from another pool"
            )
    for letter, record in (("A", a), ("B", b)):
        lines += _example_faults(letter, record)
    return lines


def _example_faults(letter: str, record: EvidenceRecord) -> list[str]:
    """Return lines on examples that are missing, or that show a row its own question."""
    lines = []
    is_on = _settings(record).get("examples", "none") != "none"
    if is_on and record.rows and not any(row["examples"] for row in record.rows):
        lines.append(f"{letter} has few-shot examples switched on, but no row has any")
    leaking = [row["query_id"] for row in record.rows if _has_own_question(row)]
    if leaking:
        lines.append(f"{letter} shows {len(leaking)} rows their own question; first {leaking[0]}")
    return lines


def _has_own_question(row: Mapping[str, Any]) -> bool:
    unit = unit_of(row["query_id"])
    return any(unit_of(example) == unit for example in row["examples"])


def _ids(ids: Sequence[str]) -> str:
    return " ".join(ids) or "none"


def _first_row(a: EvidenceRecord, b: EvidenceRecord, key: str) -> list[str]:
    """Return a line on the first row that differs, by the digests in the evidence."""
    pairs = list(zip(a.rows, b.rows, strict=False))
    differing = [x["query_id"] for x, y in pairs if x[key] != y[key]]
    return (
        [f"{len(differing)} of {len(pairs)} probe rows; first {differing[0]}"] if differing else []
    )


def _texts(a: EvidenceRecord, b: EvidenceRecord, artifacts: Artifacts) -> list[str]:
    lines = _first_row(a, b, "text")
    values = _first_values(a, b, "text")
    if values is None:
        return lines
    query_id, x, y = values
    lines = lines or [f"first probe row {query_id}"]
    return lines + _characters(x, y, with_text=artifacts.with_text)


def _characters(x: str, y: str, *, with_text: bool) -> list[str]:
    position = first_mismatch(x, y)
    lines = [f"character {position}: A has {character(x, position)}, B {character(y, position)}"]
    if with_text:
        start, end = max(position - _CONTEXT, 0), position + _CONTEXT
        lines += [
            f"{letter}: {marked(text[start:position])}>>{marked(text[position:end])}"
            for letter, text in (("A", x), ("B", y))
        ]
    return lines


def _first_values(a: EvidenceRecord, b: EvidenceRecord, key: str) -> tuple[str, Any, Any] | None:
    rows = zip(a.texts or [], b.texts or [], strict=False)
    return next(((x["query_id"], x[key], y[key]) for x, y in rows if x[key] != y[key]), None)


def _tokens(a: EvidenceRecord, b: EvidenceRecord, artifacts: Artifacts) -> list[str]:
    lines = _first_row(a, b, "tokens")
    values = _first_values(a, b, "tokens")
    if values is not None:
        query_id, x, y = values
        position = first_mismatch(x, y)
        pieces = _piece(x, position, artifacts), _piece(y, position, artifacts)
        lines = lines or [f"first probe row {query_id}"]
        lines.append(f"its token {position}: A {pieces[0]}, B {pieces[1]}")
    versions = packages_that_differ(a, b)
    readers = [name for name in ("tokenizers", "transformers") if name in versions]
    lines += [f"{name}: A {versions[name][0]}, B {versions[name][1]}" for name in readers]
    if layer_values.values(a).get("base") == layer_values.values(b).get("base"):
        cause = "another library version reads them" if readers else "slow against fast tokenizer?"
        lines.append(f"the tokenizer's files are the same: {cause}")
    return lines


def _piece(ids: Sequence[int], position: int, artifacts: Artifacts) -> str:
    if position >= len(ids):
        return "the end"
    piece = artifacts.pieces.get(ids[position])
    if piece is None:
        return str(ids[position])
    is_hidden = any(char.isalnum() for char in piece) and not artifacts.with_text
    return f"{ids[position]} {'(a piece of text)' if is_hidden else repr(piece)}"


def _packages(a: EvidenceRecord, b: EvidenceRecord) -> list[str]:
    return [
        f"{name}: A {x or 'none'}, B {y or 'none'} "
        f"({MODEL_PACKAGES.get(name, 'does not affect embeddings')})"
        for name, (x, y) in packages_that_differ(a, b).items()
    ]
