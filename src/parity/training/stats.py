"""Cost of a training so far, from which the next one is planned."""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class TrainingStats:
    """Cost of the steps done; a resumed training continues counting.

    Attributes:
        tokens: tokens of all batches and processes, with prefix sharing.
        seconds: time of the steps, with compilation and without scoring.
        graph_tokens: largest number of tokens whose graph this process held at the same time.
        token_bytes: largest measured bytes on the GPU of one of these tokens; 0 if unknown.
    """

    tokens: int = 0
    seconds: float = field(default=0.0, compare=False)  # differs between equal trainings
    graph_tokens: int = 0
    token_bytes: float = 0.0

    def add_seconds(self, seconds: float) -> "TrainingStats":
        """Return the stats with `seconds` added."""
        return replace(self, seconds=self.seconds + seconds)

    def add_step(self, *, tokens: int, graph_tokens: int, peak_increase: int) -> "TrainingStats":
        """Return the stats with one step added.

        Args:
            tokens: tokens of the step's batches, with prefix sharing.
            graph_tokens: largest number of tokens whose graph was held at the same time.
            peak_increase: bytes by which the peak of the GPU exceeds the allocation before the
                step; 0 if unknown.
        """
        added = replace(self, tokens=self.tokens + tokens)
        if graph_tokens <= self.graph_tokens:  # the peak belongs to a larger step
            return added
        return replace(
            added,
            graph_tokens=graph_tokens,
            token_bytes=max(self.token_bytes, peak_increase / graph_tokens),
        )
