"""The only place that writes text for the model; knows no tokenizer and no model.

Mining, training, evaluation and the kernel all call `query` and `passage`, so a prompt cannot
differ between them. Length is judged by a counting function that the caller passes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import Formatter

from parity.competition.exemplars import Exemplar
from parity.competition.questions import Query
from parity.run import digest
from parity.run.config import PromptConfig
from parity.run.errors import BadConfig

_FORMATS = {
    # e5-mistral, Qwen and sentence encoders; without an instruction the query stands alone.
    "plain": ("Instruct: {instruction}\nQuery: {query}", "\nAnswer: "),
    # bge-en-icl (FlagEmbedding, inference/embedder/decoder_only/icl.py).
    "icl": ("<instruct>{instruction}\n<query>{query}", "\n<response>"),
}
_BETWEEN = "\n\n"
_QUERY_FIELDS = {"construct", "subject", "question", "correct", "wrong"}
_PASSAGE_FIELDS = {"misconception"}

Count = Callable[[str], int]
"""Text → number of tokens, special tokens included."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One query as the model sees it.

    Attributes:
        text: the whole prompt.
        exemplars: how many worked examples it carries.
        cut: whether the question's own text had to be shortened.
    """

    text: str
    exemplars: int
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
    return digest.of_value([*kept, config.query_max, config.passage_max])


def passage(config: PromptConfig, misconception: str) -> str:
    """Return the text of a passage.

    >>> passage(PromptConfig(), "Adds the denominators")
    'Adds the denominators'
    """
    return config.passage.format(misconception=misconception)


def bare(config: PromptConfig, asked: Query) -> str:
    """Return a query's own text: no instruction, no exemplars, nothing cut.

    Other packages add their instruction themselves; this is what they are given.
    """
    return _fill(config, asked, asked.question)


def query(
    config: PromptConfig, asked: Query, exemplars: Sequence[Exemplar], *, count: Count
) -> Rendered:
    """Return the text of a query with its worked examples, at most `query_max` tokens long.

    Exemplars go, last first, before the query is touched; then the question text (never the wrong
    answer) loses its tail.

    Args:
        config: templates and lengths.
        asked: the query.
        exemplars: worked examples, in order.
        count: text → tokens, special tokens included.

    Raises:
        BadConfig: even without the question text the prompt is too long.
    """
    for kept in range(len(exemplars), -1, -1):
        text = _join(config, asked, exemplars[:kept], asked.question)
        if count(text) <= config.query_max:
            return Rendered(text, kept, cut=False)
    low, high = 0, len(asked.question)  # longest head of the question that fits
    if count(_join(config, asked, (), "")) > config.query_max:
        raise BadConfig(
            f"prompt.query_max = {config.query_max}: query {asked.query_id} does not fit even "
            "without its question text; raise prompt.query_max"
        )
    while low < high:
        middle = (low + high + 1) // 2
        fits = count(_join(config, asked, (), asked.question[:middle])) <= config.query_max
        low, high = (middle, high) if fits else (low, middle - 1)
    return Rendered(_join(config, asked, (), asked.question[:low]), 0, cut=True)


def _join(config: PromptConfig, asked: Query, exemplars: Sequence[Exemplar], question: str) -> str:
    _, mark = _FORMATS[config.format]
    parts = [
        _core(config, shown.query, shown.query.question)
        + mark
        + passage(config, shown.passage)
        + _BETWEEN
        for shown in exemplars
    ]
    # The mark closes every icl query; a plain one only where worked examples set the pattern.
    closing = mark.rstrip(" ") if config.format == "icl" or exemplars else ""
    return "".join(parts) + _core(config, asked, question) + closing


def _core(config: PromptConfig, asked: Query, question: str) -> str:
    text = _fill(config, asked, question)
    if config.format == "plain" and not config.instruction:
        return text
    return _FORMATS[config.format][0].format(instruction=config.instruction, query=text)


def _fill(config: PromptConfig, asked: Query, question: str) -> str:
    return config.query.format(
        construct=asked.construct,
        subject=asked.subject,
        question=question,
        correct=asked.correct,
        wrong=asked.wrong,
    )
