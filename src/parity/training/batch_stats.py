"""Statistics of an epoch's batches: size, and false negatives that are masked or left in."""

from collections.abc import Iterable
from dataclasses import dataclass

from parity.training.batches import Batch


@dataclass(frozen=True, slots=True)
class BatchStats:
    """Statistics of an epoch's batches.

    Attributes:
        steps: number of batches.
        queries: number of queries over all batches.
        passages: number of passages to encode over all batches.
        distinct: number of different passages.
        masked: number of masked (query, passage) pairs, which would be false negatives.
        unmasked: number of pairs with a query's own positive as a negative (`flagembedding`).
        meetings: number of batches in which two queries share a positive or its text.
    """

    steps: int
    queries: int
    passages: int
    distinct: int
    masked: int
    unmasked: int
    meetings: int

    @property
    def text(self) -> str:
        """Summary in one line."""
        return (
            f"{self.steps} batches of {self.queries} queries and {self.passages} passages "
            f"({self.distinct} distinct ids); a positive is shared in {self.meetings} of them; "
            f"false negatives: {self.masked} masked, {self.unmasked} left in"
        )


def batch_stats(batches: Iterable[Batch]) -> BatchStats:
    """Count steps, queries, passages and false negatives."""
    batches = list(batches)
    return BatchStats(
        steps=len(batches),
        queries=sum(len(batch.query_ids) for batch in batches),
        passages=sum(len(batch.passages) for batch in batches),
        distinct=len({key for batch in batches for key in batch.passages}),
        masked=sum(len(hidden) for batch in batches for hidden in batch.masked),
        unmasked=sum(map(_unmasked, batches)),
        meetings=sum(map(_meets, batches)),
    )


def _unmasked(batch: Batch) -> int:
    """Return how often a query's own positive is an unmasked negative in the batch."""
    return sum(
        batch.passages.count(batch.passages[target])
        - 1
        - sum(batch.passages[index] == batch.passages[target] for index in hidden)
        for target, hidden in zip(batch.target, batch.masked, strict=True)
    )


def _meets(batch: Batch) -> bool:
    """Return whether two queries share a positive, or a query masks the target of another."""
    answers = [batch.passages[target] for target in batch.target]
    targets = set(batch.target)
    return len(set(answers)) < len(answers) or any(
        not targets.isdisjoint(hidden) for hidden in batch.masked
    )
