"""Every character the model sees, and what gives way when there are too many."""

import dataclasses
import inspect
from typing import Any

import pytest
import tiny
from FlagEmbedding.inference.embedder.decoder_only.icl import ICLLLMEmbedder
from hypothesis import given
from hypothesis import strategies as st

from parity.competition.eedi.eedi import Eedi
from parity.competition.few_shot import Example
from parity.retrieval import prompts
from parity.run.config.prompt import PromptConfig
from parity.run.errors import BadConfig

ASKED, SHOWN, OTHER = (
    query for query in tiny.queries() if query.query_id in {"10_B", "12_A", "30_A"}
)
EXAMPLES = (
    Example(SHOWN, tiny.at(4), "Takes the smaller digit from the larger"),
    Example(OTHER, tiny.at(1), "Adds the denominators"),
)
SHORT = "{question} {correct} {wrong}"
TASK = "Find the misconception"

text = st.text(max_size=30)


def config_of(**keys: Any) -> PromptConfig:
    return PromptConfig.model_validate({"query_max_length": 1000, **keys})


def check(config: PromptConfig) -> None:
    """Check templates against the fields of Eedi."""
    prompts.check(
        config,
        fields=Eedi.fields,
        required=Eedi.required_field,
        passage_fields=Eedi.passage_fields,
    )


def render(config: PromptConfig, examples: tuple[Example, ...] = ()) -> str:
    return prompts.query(config, ASKED, examples, count=len).text


def test_a_plain_query_without_an_instruction_stands_alone() -> None:
    assert render(config_of()) == (
        "Adding Fractions. Add fractions with different denominators.\n"
        "Question: Work out 1/2 + 1/3\n"
        "Correct: 5/6\n"
        "Wrong: 2/5"
    )


def test_a_plain_query_with_an_instruction() -> None:
    config = config_of(instruction=TASK, query=SHORT)
    assert render(config) == ("Instruct: Find the misconception\nQuery: Work out 1/2 + 1/3 5/6 2/5")


def test_a_plain_query_with_examples_ends_where_they_answer() -> None:
    config = config_of(instruction=TASK, query=SHORT)
    assert render(config, EXAMPLES) == (
        "Instruct: Find the misconception\n"
        "Query: Work out 52 - 37 15 25\n"
        "Answer: Takes the smaller digit from the larger\n"
        "\n"
        "Instruct: Find the misconception\n"
        "Query: Work out 1/4 + 1/4 1/2 2/8\n"
        "Answer: Adds the denominators\n"
        "\n"
        "Instruct: Find the misconception\n"
        "Query: Work out 1/2 + 1/3 5/6 2/5\n"
        "Answer:"
    )


def test_an_icl_query() -> None:
    config = config_of(format="icl", instruction=TASK, query=SHORT)
    assert render(config) == (
        "<instruct>Find the misconception\n<query>Work out 1/2 + 1/3 5/6 2/5\n<response>"
    )
    assert render(config, EXAMPLES[:1]) == (
        "<instruct>Find the misconception\n"
        "<query>Work out 52 - 37 15 25\n"
        "<response>Takes the smaller digit from the larger\n"
        "\n"
        "<instruct>Find the misconception\n"
        "<query>Work out 1/2 + 1/3 5/6 2/5\n"
        "<response>"
    )


@pytest.mark.parametrize("count", [0, 1, 2])
def test_c15_icl_is_flag_embedding_s_own_prompt(count: int) -> None:
    config = config_of(format="icl", instruction=TASK)
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(ICLLLMEmbedder.__init__).parameters.items()
    }
    examples = [
        ICLLLMEmbedder.get_detailed_example(
            defaults["examples_instruction_format"],
            TASK,
            prompts.query_text(config, example.query),
            prompts.passage(config, example.passage),
        )
        for example in EXAMPLES[:count]
    ]
    instructed = ICLLLMEmbedder.get_detailed_instruct(
        defaults["query_instruction_format"], TASK, prompts.query_text(config, ASKED)
    )
    # As `set_examples` and `encode_queries_single_device` put them together.
    prefix = "\n\n".join(examples) + "\n\n" if examples else ""
    assert render(config, EXAMPLES[:count]) == prefix + instructed + defaults["suffix"]


@pytest.mark.parametrize("form", ["plain", "icl"])
def test_c14_a_newline_is_a_newline(form: str) -> None:
    rendered = render(config_of(format=form, instruction=TASK), EXAMPLES)
    assert "\\n" not in rendered
    assert rendered.count("\n") > 6


def test_braces_in_a_text_are_a_text() -> None:
    query = ASKED.with_field("question", r"\( \frac{1}{2} \) {wrong}").with_field("wrong", "{0}")
    rendered = prompts.query(config_of(query=SHORT, instruction="{x}"), query, (), count=len)
    assert rendered.text == "Instruct: {x}\nQuery: \\( \\frac{1}{2} \\) {wrong} 5/6 {0}"
    assert prompts.passage(config_of(passage="It {misconception}."), "{y}") == "It {y}."


def test_examples_are_dropped_last_first_before_the_query_is_cut() -> None:
    config = config_of(instruction=TASK, query=SHORT)
    complete = [render(config, EXAMPLES[:example_count]) for example_count in range(3)]
    for example_count in range(3):
        for limit in (len(complete[example_count]), len(complete[min(example_count + 1, 2)]) - 1):
            if limit < len(complete[example_count]):
                continue
            tight = config.model_copy(update={"query_max_length": limit})
            result = prompts.query(tight, ASKED, EXAMPLES, count=len)
            assert result == prompts.Rendered(complete[example_count], example_count, cut=False)


def test_c18_a_question_that_is_too_long_is_cut_at_the_end_and_reported() -> None:
    config = config_of(query=SHORT, query_max_length=16)
    result = prompts.query(config, ASKED, EXAMPLES, count=len)
    assert result == prompts.Rendered("Work out 5/6 2/5", 0, cut=True)


@given(text, text, text, text, st.integers(16, 120))
def test_question_then_right_then_wrong_answer_are_cut_and_as_much_is_kept_as_fits(
    question: str, correct: str, wrong: str, subject: str, limit: int
) -> None:
    fields = {"question": question, "correct": correct, "wrong": wrong, "subject": subject}
    query = dataclasses.replace(ASKED, fields={**ASKED.fields, **fields})
    config = config_of(query=f"{{subject}}|{SHORT}", query_max_length=limit)
    room = limit - len(f"{subject}|  ")
    if room < 0:
        with pytest.raises(BadConfig):
            prompts.query(config, query, (), count=len)
        return
    result = prompts.query(config, query, (), count=len)
    expected = {"wrong": wrong[:room]}
    room -= len(expected["wrong"])
    expected["correct"] = correct[:room]
    room -= len(expected["correct"])
    expected["question"] = question[:room]
    fits = expected == {"question": question, "correct": correct, "wrong": wrong}
    assert (
        result.text == f"{subject}|{expected['question']} {expected['correct']} {expected['wrong']}"
    )
    assert result.cut == (not fits)
    assert not result.cut or len(result.text) == limit


def test_a_template_too_long_for_any_text_is_refused() -> None:
    config = config_of(query="A very long template: {wrong}", query_max_length=16)
    with pytest.raises(
        BadConfig, match=r"query_max_length = 16: query 10_B does not fit even without"
    ):
        prompts.query(config, ASKED, (), count=len)


def test_the_text_of_a_query_is_only_its_template() -> None:
    config = config_of(format="icl", instruction=TASK, query=SHORT, query_max_length=16)
    assert prompts.query_text(config, ASKED) == "Work out 1/2 + 1/3 5/6 2/5"


@pytest.mark.parametrize(
    "change",
    [
        {"format": "icl"},
        {"instruction": TASK},
        {"query": SHORT},
        {"passage": "{misconception}."},
        {"query_max_length": 257},
        {"passage_max_length": 65},
    ],
)
def test_c15_another_template_or_length_has_another_digest(change: dict[str, object]) -> None:
    changed = PromptConfig.model_validate(change)
    assert prompts.template_digest(changed) != prompts.template_digest(PromptConfig())


def test_the_template_digest_leaves_the_choice_of_examples_alone() -> None:
    changed = PromptConfig(examples="fixed", example_count=3)
    assert prompts.template_digest(changed) == prompts.template_digest(PromptConfig())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"query": "{wrong} {answer}"}, r"prompt\.query: unknown field {answer}; known: \['const"),
        ({"query": "{wrong} {}"}, r"prompt\.query: unknown field {}"),
        ({"query": "{wrong.real}"}, r"prompt\.query: unknown field {wrong\.real}"),
        ({"query": "{wrong"}, r"prompt\.query: broken template"),
        ({"query": "{question}"}, r"prompt\.query: the field {wrong} is missing"),
        ({"passage": "text"}, r"prompt\.passage: the field {misconception} is missing"),
        ({"passage": "{misconception} {wrong}"}, r"prompt\.passage: unknown field {wrong}"),
        ({"query": "{wrong!x}"}, r"prompt\.query: broken template"),
        ({"query": "{wrong:{width}}"}, r"prompt\.query: broken template"),
        ({"query": "{wrong:d}"}, r"prompt\.query: broken template"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(
    change: dict[str, object], problem: str
) -> None:
    with pytest.raises(BadConfig, match=problem):
        check(PromptConfig.model_validate(change))


def test_the_templates_of_the_defaults_pass() -> None:
    check(PromptConfig())
    check(PromptConfig(query="{{literal}} {wrong}"))
    check(PromptConfig(passage="{misconception}"))
