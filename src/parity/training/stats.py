"""What training took so far, from which the next one is planned."""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class TrainingStats:
    """What the steps done took; a resumed training goes on counting.

    Attributes:
        tokens: of all batches and processes, prefixes that were shared once.
        seconds: of the steps alone, compilation included and scoring not.
        held: the most tokens whose graph lay in this process's memory at once.
        node: the most bytes of a GPU that one of them was seen to take; 0 where it is not known.
    """

    tokens: int = 0
    seconds: float = field(default=0.0, compare=False)  # no two trainings take equally long
    held: int = 0
    node: float = 0.0

    def lasted(self, seconds: float) -> "TrainingStats":
        """Return it with so much more time."""
        return replace(self, seconds=self.seconds + seconds)

    def add(self, *, tokens: int, held: int, risen: int) -> "TrainingStats":
        """Return it with one more step.

        Args:
            tokens: of the step's batches.
            held: tokens that lay in memory at once.
            risen: bytes of the GPU's peak beside what was taken before; 0 where it is not known.
        """
        added = replace(self, tokens=self.tokens + tokens)
        if held <= self.held:  # the peak is of a larger step
            return added
        return replace(added, held=held, node=max(self.node, risen / held))
