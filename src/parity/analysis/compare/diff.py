"""Where two sides part, in the layer's own terms: a setting, a row, a character, a token."""

from collections.abc import Mapping, Sequence
from typing import Any

from parity.analysis.compare import layer_values
from parity.analysis.compare.evidence_record import Artifacts, EvidenceRecord
from parity.competition.scoring.bootstrap import question_of

_POLICY = ("examples", "example_count", "example_seed")
_TEMPLATE = ("format", "instruction", "query", "passage", "query_max_length", "passage_max_length")
_AROUND = 24  # characters shown each side of the first that differs
_SHOWN = 12  # of a digest
_MARKS = {"\n": "<newline>", "\t": "<tab>", "\r": "<return>", "\\": "<backslash>", "\xa0": "<nbsp>"}
MATTERS = {
    "torch": "its kernels round otherwise",
    "transformers": "reads the model and the tokenizer",
    "tokenizers": "decides token ids",
    "peft": "applies the adapter",
    "bitsandbytes": "quantizes",
    "safetensors": "reads the weights",
    "accelerate": "places the weights",
    "kaggle-parity": "writes prompts, packs and ranks",
    "this project's source": "writes prompts, packs and ranks",
}
"""Packages that can move an embedding, and by what."""


def told(layer: str, a: EvidenceRecord, b: EvidenceRecord, known: Artifacts) -> list[str]:
    """Return lines on how a layer differs, as far as evidence and artifacts can tell."""
    special = {
        "template": lambda: _keys(a, b, _TEMPLATE),
        "examples": lambda: _examples(a, b),
        "texts": lambda: _texts(a, b, known),
        "tokens": lambda: _tokens(a, b, known),
        "packages": lambda: _packages(a, b),
    }
    lines = special[layer]() if layer in special else []
    mine, theirs = layer_values.values(a)[layer], layer_values.values(b)[layer]
    if layer in ("split", "lineage"):
        lines += _names(layer, a, b)
    if not lines:
        lines.append(f"A {_cut(mine)}, B {_cut(theirs)}")
    return [*lines, *_elsewhere(layer, a, b, known)]


def packages_that_differ(a: EvidenceRecord, b: EvidenceRecord) -> dict[str, tuple[str, str]]:
    """Return package → version on either side, of those that differ."""
    mine, theirs = layer_values.packages(a), layer_values.packages(b)
    names = [name for name in mine if name in theirs] if mine and theirs else []
    return {n: (mine[n], theirs[n]) for n in names if mine[n] != theirs[n]}


def marked(text: str) -> str:
    r"""Return `text` with each character that hides spelled out.

    >>> marked("a\\nb\nc")
    'a<backslash>nb<newline>c'
    """
    return "".join(
        _MARKS.get(one, one if one.isprintable() else f"<U+{ord(one):04X}>") for one in text
    )


def character(text: str, place: int) -> str:
    """Return what stands at a place, without telling a letter or a digit."""
    if place >= len(text):
        return "the end"
    one = text[place]
    if one.isalnum():
        return "a letter" if one.isalpha() else "a digit"
    return f"{_MARKS.get(one, one if one != ' ' else '<space>')} (U+{ord(one):04X})"


def first(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return the first place at which two sequences differ.

    >>> first("abc", "abd"), first("ab", "abc")
    (2, 2)
    """
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (x, y) in pairs if x != y), min(len(one), len(other)))


def _cut(value: str) -> str:
    words = value.split(" ")
    return " ".join(word[:_SHOWN] if len(word) == 64 else word for word in words)


def _names(layer: str, a: EvidenceRecord, b: EvidenceRecord) -> list[str]:
    if layer == "split":
        names = [one.evidence.facts.get("split", "") for one in (a, b)]
        return [f"named {names[0]} and {names[1]}"] if all(names) else []
    bad = [name for name, one in (("A", a), ("B", b)) if one.evidence.status == "contaminated"]
    return [f"{name} was scored on rows its adapter was trained on: no score" for name in bad]


def _elsewhere(layer: str, a: EvidenceRecord, b: EvidenceRecord, known: Artifacts) -> list[str]:
    """Return what other record has B's adapter, base or split, or A's: a mix-up shows so."""
    if layer not in ("adapter", "base", "split", "lineage"):
        return []
    lines = []
    for letter, one in (("A", a), ("B", b)):
        digest = one.evidence.layers.get(layer, "")
        me = (one.evidence.run, one.evidence.round, one.evidence.label)
        others = {
            f"{record.run}/round-{record.round}/{record.label}": None
            for record in known.records
            if digest
            and record.layers.get(layer) == digest
            and record.label != "test"
            and (record.run, record.round, record.label) != me
        }
        if others:
            lines.append(f"{letter}'s is also that of {', '.join(list(others)[:3])}")
    if layer == "base" and layer_values.NONE in (
        layer_values.values(b)["adapter"],
        layer_values.values(a)["adapter"],
    ):
        lines.append("one side has no adapter: a merged model? merge in full precision only")
    return lines


def _settings(one: EvidenceRecord) -> Mapping[str, Any]:
    return one.settings or one.evidence.facts.get("prompt", {})


def _keys(a: EvidenceRecord, b: EvidenceRecord, names: Sequence[str]) -> list[str]:
    whole = a.settings and b.settings
    mine, theirs = (
        (one.settings if whole else one.evidence.facts.get("prompt", {})) or {} for one in (a, b)
    )
    lines = []
    for name in names:
        x, y = mine.get(name), theirs.get(name)
        if x == y or name not in mine or name not in theirs:
            continue
        if name in ("instruction", "query", "passage"):
            lines.append(f"prompt.{name} differs")
            lines += _characters(str(x), str(y), shown=True) if whole else [f"digests A {x}, B {y}"]
        else:
            lines.append(f"prompt.{name}: A {x}, B {y}")
    return lines


def _examples(a: EvidenceRecord, b: EvidenceRecord) -> list[str]:
    lines = _keys(a, b, _POLICY)
    pairs = list(zip(a.rows, b.rows, strict=False))
    odd = [(x, y) for x, y in pairs if x["examples"] != y["examples"]]
    if odd:
        x, y = odd[0]
        lines.append(f"{len(odd)} of {len(pairs)} probe rows; first {x['query_id']}:")
        lines.append(f"A shows {_listed(x['examples'])}, B {_listed(y['examples'])}")
        if not lines[0].startswith("prompt."):
            lines.append(
                "the policy is the same: few-shot examples were drawn anew, or from another pool"
            )
    for letter, one in (("A", a), ("B", b)):
        on = _settings(one).get("examples", "none") != "none"
        if on and one.rows and not any(row["examples"] for row in one.rows):
            lines.append(f"{letter} has few-shot examples switched on, and no row carries one")
        own = [row["query_id"] for row in one.rows if _own(row)]
        if own:
            lines.append(f"{letter} shows {len(own)} rows their own question; first {own[0]}")
    return lines


def _own(row: Mapping[str, Any]) -> bool:
    question = question_of(row["query_id"])
    return any(question_of(one) == question for one in row["examples"])


def _listed(ids: Sequence[str]) -> str:
    return " ".join(ids) or "none"


def _row(a: EvidenceRecord, b: EvidenceRecord, key: str) -> list[str]:
    """Return the first row that differs, by the digests that the evidence carries."""
    pairs = list(zip(a.rows, b.rows, strict=False))
    odd = [x["query_id"] for x, y in pairs if x[key] != y[key]]
    return [f"{len(odd)} of {len(pairs)} probe rows; first {odd[0]}"] if odd else []


def _texts(a: EvidenceRecord, b: EvidenceRecord, known: Artifacts) -> list[str]:
    lines = _row(a, b, "text")
    both = _both(a, b, "text")
    if both is None:
        return lines
    query_id, one, other = both
    lines = lines or [f"first probe row {query_id}"]
    return lines + _characters(one, other, shown=known.with_text)


def _characters(one: str, other: str, *, shown: bool) -> list[str]:
    place = first(one, other)
    lines = [f"character {place}: A has {character(one, place)}, B {character(other, place)}"]
    if shown:
        start = max(place - _AROUND, 0)
        lines += [
            f"{name}: {marked(text[start:place])}>>{marked(text[place : place + _AROUND])}"
            for name, text in (("A", one), ("B", other))
        ]
    return lines


def _both(a: EvidenceRecord, b: EvidenceRecord, key: str) -> tuple[str, Any, Any] | None:
    rows = zip(a.texts or [], b.texts or [], strict=False)
    return next(((x["query_id"], x[key], y[key]) for x, y in rows if x[key] != y[key]), None)


def _tokens(a: EvidenceRecord, b: EvidenceRecord, known: Artifacts) -> list[str]:
    lines = _row(a, b, "tokens")
    both = _both(a, b, "tokens")
    if both is not None:
        query_id, one, other = both
        place = first(one, other)
        lines = lines or [f"first probe row {query_id}"]
        lines.append(
            f"token {place} of it: A {_piece(one, place, known)}, B {_piece(other, place, known)}"
        )
    odd = packages_that_differ(a, b)
    readers = [name for name in ("tokenizers", "transformers") if name in odd]
    lines += [f"{name}: A {odd[name][0]}, B {odd[name][1]}" for name in readers]
    if layer_values.values(a).get("base") == layer_values.values(b).get("base"):
        cause = "a library reads them otherwise" if readers else "slow against fast tokenizer?"
        lines.append(f"the tokenizer's files are the same: {cause}")
    return lines


def _piece(ids: Sequence[int], place: int, known: Artifacts) -> str:
    if place >= len(ids):
        return "the end"
    piece = known.pieces.get(ids[place])
    if piece is None:
        return str(ids[place])
    hidden = any(one.isalnum() for one in piece) and not known.with_text
    return f"{ids[place]} {'(a piece of text)' if hidden else repr(piece)}"


def _packages(a: EvidenceRecord, b: EvidenceRecord) -> list[str]:
    return [
        f"{name}: A {mine or 'none'}, B {theirs or 'none'} "
        f"({MATTERS.get(name, 'moves no embedding')})"
        for name, (mine, theirs) in packages_that_differ(a, b).items()
    ]
