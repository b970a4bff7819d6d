"""Ways of sampling and of dropout whose effect on MAP is measured, each as a few overrides."""

from dataclasses import dataclass
from typing import Literal

from parity.run.config.run_file import Config

_QUESTION_ROWS = 2.25  # labeled rows of a question on the train side: 2,726 rows, 1,211 questions
_EXAMPLES = 2
_DROPOUT = 0.1

Masks = Literal["shared", "apart"]
"""Dropout masks: one for a token that several sequences share, or one for each sequence."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train.

    Attributes:
        name: letter of the arm.
        about: description in a few words.
        examples: `prompt.examples`.
        group_by: `training.group_by`.
        against: names of the arms it is compared with.
        dropout: `training.lora_dropout`.
        masks: `apart` runs every sequence without prefix sharing, in training and in scoring.
        checkpointing: `training.gradient_checkpointing`, where a batch has too many tokens to share
            a GPU with other trials; slower, with the same gradient.
    """

    name: str
    about: str
    examples: Literal["none", "random", "batch", "question"]
    group_by: Literal["row", "question"] = "row"
    against: tuple[str, ...] = ()
    dropout: float = 0.0
    masks: Masks = "shared"
    checkpointing: bool = False

    def sets(self, seed: int, config: Config) -> tuple[str, ...]:
        """Return the overrides that make a run this arm.

        Args:
            seed: seed of order, few-shot examples, negatives and dropout.
            config: config of the run without overrides; a step keeps about its number of rows.
        """
        batch = config.training.batch_size
        if self.group_by == "question":
            batch = max(1, round(batch / _QUESTION_ROWS))
        return (
            f"prompt.examples={self.examples}",
            f"prompt.example_count={0 if self.examples == 'none' else _EXAMPLES}",
            f"prompt.example_seed={seed}",
            f"mining.seed={seed}",
            f"training.seed={seed}",
            f"training.group_by={self.group_by}",
            f"training.batch_size={batch}",
            f"training.lora_dropout={self.dropout}",
            f"training.gradient_checkpointing={str(self.checkpointing).lower()}",
        )


_ALL = (
    Arm("A", "examples at random for each query", "random", against=("D",), checkpointing=True),
    Arm("B", "examples shared by the batch", "batch", against=("A", "D")),
    Arm("C", "examples of the question, batches of questions", "question", "question", ("A", "D")),
    Arm("D", "no few-shot examples", "none"),
    Arm("E", "no few-shot examples, batches of questions", "none", "question", ("D",)),
    Arm("F", "D with dropout, masks shared", "none", "row", ("D", "G"), _DROPOUT),
    Arm("G", "D with dropout, masks apart", "none", "row", ("D",), _DROPOUT, "apart"),
    Arm("H", "B with dropout, masks shared", "batch", "row", ("B", "I"), _DROPOUT),
    Arm("I", "B with dropout, masks apart", "batch", "row", ("B",), _DROPOUT, "apart", True),
)

ARMS = {arm.name: arm for arm in _ALL}
"""Name → arm.

In D the rows of a batch share only their first words, in B nearly every token of an example. So H
against I shows the effect of shared masks with much sharing, F against G with little.
"""
