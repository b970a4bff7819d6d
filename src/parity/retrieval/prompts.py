"""Rendering of queries and passages as text for the model, without a tokenizer or a model.

Mining, training, evaluation and the kernel all call `query` and `passage`, so their prompts are
equal. The caller passes a function that counts tokens.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from string import Formatter

from parity.competition.few_shot import Example
from parity.competition.query import Query
from parity.run import digest
from parity.run.config.prompt import PromptConfig
from parity.run.errors import BadConfig

_FORMATS = {
    # e5-mistral, Qwen and sentence encoders; without an instruction only the query.
    "plain": ("Instruct: {instruction}\nQuery: {query}", "\nAnswer: "),
    # bge-en-icl (FlagEmbedding, inference/embedder/decoder_only/icl.py).
    "icl": ("<instruct>{instruction}\n<query>{query}", "\n<response>"),
}
_BETWEEN = "\n\n"

Count = Callable[[str], int]
"""Text → number of tokens, including special tokens."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """Query as the model sees it.

    Attributes:
        text: complete prompt.
        examples: number of few-shot examples in the prompt.
        cut: whether the text of the query was shortened.
    """

    text: str
    examples: int
    cut: bool


def check(
    config: PromptConfig, *, fields: Collection[str], required: str, passage_fields: Collection[str]
) -> None:
    """Check that the templates use only existing fields, and all required ones.

    Args:
        config: templates.
        fields: names of a query's fields.
        required: field that the query's template must use.
        passage_fields: names for a passage's text.

    Raises:
        BadConfig: an unknown field, a broken template, or a template without a required field.
    """
    check_query(config, fields=fields, required=required)
    names = frozenset(passage_fields)
    if not names & _fields("prompt.passage", config.passage, names):
        raise BadConfig(f"prompt.passage: the field {{{min(names)}}} is missing")


def check_query(config: PromptConfig, *, fields: Collection[str], required: str) -> None:
    """Check only the template of a query, as `check` does."""
    if required not in _fields("prompt.query", config.query, fields):
        raise BadConfig(f"prompt.query: the field {{{required}}} is missing")


def _fields(name: str, template: str, names: Collection[str]) -> set[str]:
    """Return the fields of a template, and check that each is one of `names`."""
    try:
        fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise BadConfig(f"{name}: broken template ({error})") from error
    if unknown := sorted(fields - set(names)):
        raise BadConfig(f"{name}: unknown field {{{unknown[0]}}}; known: {sorted(names)}")
    try:
        template.format(**dict.fromkeys(names, "text"))
    except (KeyError, ValueError) as error:
        raise BadConfig(f"{name}: broken template ({error})") from error
    return fields


def template_digest(config: PromptConfig) -> str:
    """Return the digest of templates and lengths, which is equal in every environment."""
    frame, mark = _FORMATS[config.format]
    templates = (config.instruction, config.query, config.passage, frame, mark, _BETWEEN)
    return digest.of_value([*templates, config.query_max_length, config.passage_max_length])


def passage(config: PromptConfig, text: str) -> str:
    """Return the text of a passage.

    >>> passage(PromptConfig(), "Adds the denominators")
    'Adds the denominators'
    """
    return config.passage.format_map(_EveryField(text))


def query_text(config: PromptConfig, target: Query) -> str:
    """Return the text of a query without instruction or few-shot examples, at full length.

    Other packages take this text and add the instruction themselves.
    """
    return _fill(config, target)


def full_prompt(config: PromptConfig, target: Query, examples: Sequence[Example]) -> str:
    """Return the prompt of a query with all its few-shot examples, at full length.

    Args:
        config: templates.
        target: query to render.
        examples: few-shot examples, in order.
    """
    _, mark = _FORMATS[config.format]
    parts = [
        _core(config, shown.query) + mark + passage(config, shown.passage) + _BETWEEN
        for shown in examples
    ]
    # The mark ends every icl query; it ends a plain one only after few-shot examples.
    closing = mark.rstrip(" ") if config.format == "icl" or examples else ""
    return "".join(parts) + _core(config, target) + closing


def query(
    config: PromptConfig, target: Query, examples: Sequence[Example], *, count: Count
) -> Rendered:
    """Return the prompt of a query with its examples, at most `query_max_length` tokens long.

    Examples are dropped first, starting with the last. Then the query's fields are cut at the end,
    in the order of `QueryLayout.shorten`; the last field is cut only if it is too long by itself.
    A hidden test may have longer texts than the training data, and its rows must still be ranked.

    Args:
        config: templates and lengths.
        target: query to render.
        examples: few-shot examples, in order.
        count: text → number of tokens, including special tokens.

    Raises:
        BadConfig: the template with the fields that are never cut is too long.
    """
    for example_count in range(len(examples), -1, -1):
        text = full_prompt(config, target, examples[:example_count])
        if count(text) <= config.query_max_length:
            return Rendered(text, example_count, cut=False)
    for name in target.layout.shorten:
        text, emptied = target.fields[name], target.with_field(name, "")
        if _fits(config, emptied, count):
            low, high = 0, len(text)  # binary search for the longest start that fits
            while low < high:
                middle = (low + high + 1) // 2
                fits = _fits(config, target.with_field(name, text[:middle]), count)
                low, high = (middle, high) if fits else (low, middle - 1)
            return Rendered(
                full_prompt(config, target.with_field(name, text[:low]), ()), 0, cut=True
            )
        target = emptied
    raise BadConfig(
        f"prompt.query_max_length = {config.query_max_length}: query {target.query_id} does "
        f"not fit even without {', '.join(target.layout.shorten)}; raise prompt.query_max_length"
    )


def _fits(config: PromptConfig, target: Query, count: Count) -> bool:
    return count(full_prompt(config, target, ())) <= config.query_max_length


def _core(config: PromptConfig, target: Query) -> str:
    text = _fill(config, target)
    if config.format == "plain" and not config.instruction:
        return text
    return _FORMATS[config.format][0].format(instruction=config.instruction, query=text)


def _fill(config: PromptConfig, target: Query) -> str:
    return config.query.format_map(target.fields)


class _EveryField(dict[str, str]):
    """Mapping of every field name to the text of one passage."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def __missing__(self, name: str) -> str:
        return self._text
