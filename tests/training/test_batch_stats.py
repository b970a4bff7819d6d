"""What an epoch is made of, counted by hand."""

from collections.abc import Sequence

from parity.competition.query import Position, QueryId
from parity.training.batch_stats import BatchStats, batch_stats
from parity.training.batches import Batch


def batch(
    passages: Sequence[int], target: Sequence[int], masked: Sequence[tuple[int, ...]]
) -> Batch:
    return Batch(
        tuple(QueryId(f"{row}_A") for row in range(len(target))),
        tuple(map(Position, passages)),
        tuple(target),
        tuple(masked),
    )


def test_an_epoch_of_three_batches_is_counted() -> None:
    epoch = [
        batch([5, 6, 7, 8], [0, 1], [(), ()]),  # nobody meets
        batch([5, 6, 9], [0, 1, 0], [(1,), (2,), ()]),  # two share 5; the first masks the other's 6
        batch([5, 6, 5, 7], [0, 2], [(), ()]),  # as FlagEmbedding: 5 stands against itself, twice
    ]
    assert batch_stats(epoch) == BatchStats(
        steps=3, queries=7, passages=11, distinct=5, masked=2, unmasked=2, meetings=2
    )
    assert batch_stats(epoch).text == (
        "3 batches of 7 queries and 11 passages (5 distinct ids); a positive is shared in 2 of "
        "them; false negatives: 2 masked, 2 left in"
    )


def test_a_copy_of_the_positive_that_is_masked_is_not_left_in() -> None:
    assert batch_stats([batch([5, 6, 5], [0, 1], [(2,), ()])]).unmasked == 0
    assert batch_stats([batch([5, 6, 5], [0, 1], [(), ()])]).unmasked == 1


def test_a_mask_over_another_query_s_positive_is_a_meeting() -> None:
    assert batch_stats([batch([5, 6, 7], [0, 1], [(1,), ()])]).meetings == 1
    assert batch_stats([batch([5, 6, 7], [0, 1], [(2,), ()])]).meetings == 0


def test_no_batches_are_counted_as_none() -> None:
    assert batch_stats(iter([])) == BatchStats(0, 0, 0, 0, 0, 0, 0)
