"""The loss against its definition in float64, one query at a time."""

import math

import pytest
import torch

from parity.training.loss import info_nce


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=generator), dim=-1)


def twin(
    queries: torch.Tensor,
    passages: torch.Tensor,
    target: list[int],
    masked: list[set[int]],
    temperature: float,
) -> float:
    losses = []
    for row, right in enumerate(target):
        cosines = [
            sum(a * b for a, b in zip(queries[row].tolist(), other.tolist(), strict=True))
            for other in passages
        ]
        kept = [cosines[place] for place in range(len(cosines)) if place not in masked[row]]
        total = sum(math.exp((cosine - cosines[right]) / temperature) for cosine in kept)
        losses.append(math.log(total))
    return sum(losses) / len(losses)


def mask(rows: list[set[int]], width: int) -> torch.Tensor:
    return torch.tensor([[place in row for place in range(width)] for row in rows])


@pytest.mark.parametrize("temperature", [0.02, 0.05, 1.0])
def test_it_is_the_mean_log_share_of_the_positive(temperature: float) -> None:
    queries, passages = unit(3, 8, 0), unit(7, 8, 1)
    target, masked = [0, 4, 4], [{1, 2}, set(), {6}]
    loss = info_nce(queries, passages, torch.tensor(target), mask(masked, 7), temperature)
    expected = twin(queries, passages, target, masked, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_masked_passage_gets_no_gradient_from_the_query_that_masks_it() -> None:
    queries, passages = unit(1, 8, 0), unit(4, 8, 1).requires_grad_()
    info_nce(queries, passages, torch.tensor([1]), mask([{2}], 4), 0.05).backward()  # type: ignore[no-untyped-call]
    assert passages.grad is not None
    assert passages.grad[2].abs().max() == 0
    assert all(passages.grad[place].abs().max() > 0 for place in (0, 1, 3))


def test_a_mask_over_the_target_is_ignored() -> None:
    queries, passages = unit(2, 8, 0), unit(4, 8, 1)
    target = torch.tensor([1, 3])
    plain = info_nce(queries, passages, target, mask([{0}, set()], 4), 0.02)
    over = info_nce(queries, passages, target, mask([{0, 1}, {3}], 4), 0.02)
    assert over.item() == plain.item()


def test_a_batch_of_one_positive_alone_has_no_loss() -> None:
    loss = info_nce(unit(1, 8, 0), unit(1, 8, 1), torch.tensor([0]), mask([set()], 1), 0.02)
    assert loss.item() == 0


def test_a_passage_listed_once_weighs_less_than_one_listed_twice() -> None:
    queries, passages = unit(2, 8, 0), unit(4, 8, 1)
    target = torch.tensor([0, 1])
    once = info_nce(queries, passages, target, mask([set(), set()], 4), 0.05)
    listed = torch.cat([passages, passages[2:]])
    twice = info_nce(queries, listed, target, mask([set(), set()], 6), 0.05)
    assert twice.item() > once.item()
