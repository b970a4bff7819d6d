"""Section `[prompt]`: the text that the model reads."""

from typing import Literal

from pydantic import Field, model_validator

from parity.run.config.section import Section


class PromptConfig(Section):
    """Every character of the model's input, as data."""

    format: Literal["plain", "icl"] = "plain"
    """Layout of a query: the rendered template, or bge-en-icl's instruct, query and response."""
    instruction: str = ""
    """Task description in front of a query; empty means no instruction."""
    query: str = "{subject}. {construct}.\nQuestion: {question}\nCorrect: {correct}\nWrong: {wrong}"
    """Template of a query's text; the competition's fields in braces."""
    passage: str = "{passage}"
    """Template of a passage's text; its field in braces."""
    examples: Literal["none", "fixed", "batch", "question", "random"] = "none"
    """How few-shot examples are chosen: the same for all queries, for a training batch, from the
    nearest train units (TF-IDF), or at random for each query."""
    example_count: int = Field(0, ge=0)
    """Number of few-shot examples in a query."""
    example_seed: int = 0
    """Random seed of the choice of examples (`fixed`, `batch`, `random`)."""
    query_max_length: int = Field(256, ge=16)
    """Maximum length of a query in tokens, few-shot examples and special tokens included."""
    passage_max_length: int = Field(64, ge=8)
    """Maximum length of a passage in tokens, special tokens included."""

    @model_validator(mode="after")
    def _coherent(self) -> "PromptConfig":
        if self.examples == "none":
            # Without examples the count is not used; equal prompts must have equal settings.
            object.__setattr__(self, "example_count", 0)
        elif not self.example_count:
            raise ValueError(f"examples = {self.examples!r} needs prompt.example_count, 1 or more")
        for name in ("instruction", "query", "passage"):
            if "\\n" in getattr(self, name):
                raise ValueError(f"{name} holds a backslash and an n; write a real newline")
        return self
