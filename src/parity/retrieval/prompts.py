"""The only place that writes text for the model; knows no tokenizer and no model.

Mining, training, evaluation and the kernel all call `query` and `passage`, so a prompt cannot
differ between them. Length is judged by a counting function that the caller passes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from string import Formatter

from parity.competition.few_shot import Example
from parity.competition.query import Query
from parity.run import digest
from parity.run.config.run_file import PromptConfig
from parity.run.errors import BadConfig

_FORMATS = {
    # e5-mistral, Qwen and sentence encoders; without an instruction the query stands alone.
    "plain": ("Instruct: {instruction}\nQuery: {query}", "\nAnswer: "),
    # bge-en-icl (FlagEmbedding, inference/embedder/decoder_only/icl.py).
    "icl": ("<instruct>{instruction}\n<query>{query}", "\n<response>"),
}
_BETWEEN = "\n\n"
# What is cut where a prompt is too long, in this order: field, and the query with its new text.
_CUT: tuple[tuple[Callable[[Query], str], Callable[[Query, str], Query]], ...] = (
    (lambda item: item.question, lambda one, text: replace(one, question=text)),
    (lambda item: item.correct, lambda one, text: replace(one, correct=text)),
    (lambda item: item.wrong, lambda one, text: replace(one, wrong=text)),
)
_QUERY_FIELDS = {"construct", "subject", "question", "correct", "wrong"}
_PASSAGE_FIELDS = {"misconception"}

Count = Callable[[str], int]
"""Text → number of tokens, special tokens included."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One query as the model sees it.

    Attributes:
        text: the whole prompt.
        examples: how many few-shot examples it carries.
        cut: whether the query's own text had to be shortened.
    """

    text: str
    examples: int
    cut: bool


def check(config: PromptConfig) -> None:
    """Check that the templates name only fields that exist, and name what they must.

    Raises:
        BadConfig: an unknown field, a broken template, or a query without its wrong answer.
    """
    for name, template, known in (
        ("prompt.query", config.query, _QUERY_FIELDS),
        ("prompt.passage", config.passage, _PASSAGE_FIELDS),
    ):
        try:
            fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
        except ValueError as error:
            raise BadConfig(f"{name}: broken template ({error})") from error
        if unknown := sorted(fields - known):
            raise BadConfig(f"{name}: unknown field {{{unknown[0]}}}; known: {sorted(known)}")
        if missing := sorted({"wrong", "misconception"} & known - fields):
            raise BadConfig(f"{name}: the field {{{missing[0]}}} is missing")
        try:
            template.format(**dict.fromkeys(known, "text"))
        except (KeyError, ValueError) as error:
            raise BadConfig(f"{name}: broken template ({error})") from error


def template_digest(config: PromptConfig) -> str:
    """Return the digest of templates and lengths: equal in every stage and environment."""
    frame, mark = _FORMATS[config.format]
    kept = (config.instruction, config.query, config.passage, frame, mark, _BETWEEN)
    return digest.of_value([*kept, config.query_max_length, config.passage_max_length])


def passage(config: PromptConfig, misconception: str) -> str:
    """Return the text of a passage.

    >>> passage(PromptConfig(), "Adds the denominators")
    'Adds the denominators'
    """
    return config.passage.format(misconception=misconception)


def bare(config: PromptConfig, asked: Query) -> str:
    """Return a query's own text: no instruction, no few-shot examples, nothing cut.

    Other packages add their instruction themselves; this is what they are given.
    """
    return _fill(config, asked)


def whole(config: PromptConfig, asked: Query, examples: Sequence[Example]) -> str:
    """Return the text of a query with all its few-shot examples, however long it is.

    Args:
        config: templates.
        asked: the query.
        examples: few-shot examples, in order.
    """
    _, mark = _FORMATS[config.format]
    parts = [
        _core(config, shown.query) + mark + passage(config, shown.passage) + _BETWEEN
        for shown in examples
    ]
    # The mark closes every icl query; a plain one only where few-shot examples set the pattern.
    closing = mark.rstrip(" ") if config.format == "icl" or examples else ""
    return "".join(parts) + _core(config, asked) + closing


def query(
    config: PromptConfig, asked: Query, examples: Sequence[Example], *, count: Count
) -> Rendered:
    """Return the text of a query with its examples, at most `query_max_length` tokens long.

    Examples go, last first, before the query is touched; then the question loses its tail, then
    the right answer, and the wrong one only where that alone is too long: a hidden test may hold
    a longer text than any seen, and its row must be ranked all the same.

    Args:
        config: templates and lengths.
        asked: the query.
        examples: few-shot examples, in order.
        count: text → tokens, special tokens included.

    Raises:
        BadConfig: the template, the construct and the subject alone are too long.
    """
    for kept in range(len(examples), -1, -1):
        text = whole(config, asked, examples[:kept])
        if count(text) <= config.query_max_length:
            return Rendered(text, kept, cut=False)
    for text_of, with_text in _CUT:
        text, emptied = text_of(asked), with_text(asked, "")
        if _fits(config, emptied, count):
            low, high = 0, len(text)  # the longest head that fits
            while low < high:
                middle = (low + high + 1) // 2
                fits = _fits(config, with_text(asked, text[:middle]), count)
                low, high = (middle, high) if fits else (low, middle - 1)
            return Rendered(whole(config, with_text(asked, text[:low]), ()), 0, cut=True)
        asked = emptied
    raise BadConfig(
        f"prompt.query_max_length = {config.query_max_length}: query {asked.query_id} does "
        "not fit even without "
        "question and answers; raise prompt.query_max_length"
    )


def _fits(config: PromptConfig, asked: Query, count: Count) -> bool:
    return count(whole(config, asked, ())) <= config.query_max_length


def _core(config: PromptConfig, asked: Query) -> str:
    text = _fill(config, asked)
    if config.format == "plain" and not config.instruction:
        return text
    return _FORMATS[config.format][0].format(instruction=config.instruction, query=text)


def _fill(config: PromptConfig, asked: Query) -> str:
    return config.query.format(
        construct=asked.construct,
        subject=asked.subject,
        question=asked.question,
        correct=asked.correct,
        wrong=asked.wrong,
    )
