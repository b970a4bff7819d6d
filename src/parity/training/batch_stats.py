"""What an epoch is made of: its size, and which false negatives were masked or left in."""

from collections.abc import Iterable
from dataclasses import dataclass

from parity.training.batches import Batch


@dataclass(frozen=True, slots=True)
class BatchStats:
    """What an epoch is made of.

    Attributes:
        steps: batches.
        queries: queries over all batches.
        passages: passages to encode over all batches.
        distinct: different misconceptions among them.
        masked: (query, passage) pairs kept from being false negatives.
        unmasked: pairs in which a query's own positive stands as a negative (`flagembedding`).
        meetings: batches in which two queries share a positive or its sentence.
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
        """One line for a person."""
        return (
            f"{self.steps} batches of {self.queries} queries and {self.passages} passages "
            f"({self.distinct} distinct ids); a positive is shared in {self.meetings} of them; "
            f"false negatives: {self.masked} masked, {self.unmasked} left in"
        )


def batch_stats(batches: Iterable[Batch]) -> BatchStats:
    """Count steps, queries, passages and what would have been false negatives."""
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
    """Return how often a query's own positive stands elsewhere in the batch, not masked."""
    return sum(
        batch.passages.count(batch.passages[target])
        - 1
        - sum(batch.passages[index] == batch.passages[target] for index in hidden)
        for target, hidden in zip(batch.target, batch.masked, strict=True)
    )


def _meets(batch: Batch) -> bool:
    """Return whether two queries have one positive, or one masks the other's."""
    answers = [batch.passages[target] for target in batch.target]
    targets = set(batch.target)
    return len(set(answers)) < len(answers) or any(
        not targets.isdisjoint(hidden) for hidden in batch.masked
    )
