"""The loss against its definition in float64, one query at a time."""

import math

import pytest
import torch

from parity.training.loss import PassageGroups, distilled, info_nce


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


KINDS = ["kl_div", "m3_kd_loss"]
OWN = [[0, 3, 4, 5], [1, 4], [1, 0, 6]]
"""Ragged; two queries have one positive, and one's positive is another's negative."""
TEACHER = [[2.0, 1.0, -1.0, 0.5], [0.5, 1.5], [3.0, 2.5, -2.0]]
MASKED: list[set[int]] = [{1, 2}, set(), {5}]


def shares(scores: list[float]) -> list[float]:
    total = sum(map(math.exp, scores))
    return [math.exp(score) / total for score in scores]


def surprise(row: list[float], among: set[int], place: int) -> float:
    return math.log(sum(math.exp(row[other] - row[place]) for other in among))


def taught(kind: str, scores: torch.Tensor) -> float:
    """Return the loss with a teacher by its definition, one query and one passage at a time."""
    losses = []
    for row, own, given, masked in zip(scores.tolist(), OWN, TEACHER, MASKED, strict=True):
        left = set(range(len(row))) - masked
        loss = surprise(row, left, own[0]) if kind == "kl_div" else 0.0
        for place, weight in zip(own, shares(given), strict=True):
            among = set(own) if kind == "kl_div" else left
            loss += weight * surprise(row, among, place)
            left = left - {place}
        losses.append(loss)
    return sum(losses) / len(losses)


def student() -> torch.Tensor:
    return (unit(3, 8, 0) @ unit(7, 8, 1).T / 0.2).requires_grad_()


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_is_heard_on_ragged_groups_of_a_shared_list(kind: str) -> None:
    scores = student()
    loss = distilled(kind, scores, mask(MASKED, 7), PassageGroups.of(OWN, TEACHER, scores.device))
    assert loss.item() == pytest.approx(taught(kind, scores.detach()), rel=1e-5)
    (slopes,) = torch.autograd.grad(loss, scores)
    assert torch.isfinite(slopes).all()
    assert slopes[0, [1, 2]].abs().max() == 0  # masked
    nudge = torch.zeros_like(scores)
    nudge[2, 0] = 1e-2
    rise = taught(kind, scores.detach() + nudge) - taught(kind, scores.detach() - nudge)
    assert slopes[2, 0].item() == pytest.approx(rise / 2e-2, rel=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_where_a_passage_stands_in_the_list_is_no_matter(kind: str) -> None:
    scores, order = student(), [4, 6, 0, 2, 5, 1, 3]
    moved = [[order.index(place) for place in own] for own in OWN]
    hidden = mask(MASKED, 7)
    first = distilled(kind, scores, hidden, PassageGroups.of(OWN, TEACHER, scores.device))
    other = distilled(
        kind, scores[:, order], hidden[:, order], PassageGroups.of(moved, TEACHER, scores.device)
    )
    assert other.item() == pytest.approx(first.item(), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_s_scores_belong_to_their_own_query(kind: str) -> None:
    scores, hidden = student(), mask(MASKED, 7)
    first = distilled(kind, scores, hidden, PassageGroups.of(OWN, TEACHER, scores.device))
    turned = [row[::-1] for row in TEACHER]
    other = distilled(kind, scores, hidden, PassageGroups.of(OWN, turned, scores.device))
    assert abs(other.item() - first.item()) > 1e-2


def test_a_group_is_filled_with_its_positive_which_then_weighs_nothing() -> None:
    group = PassageGroups.of(OWN, TEACHER, torch.device("cpu"))
    assert group.places.tolist() == [[0, 3, 4, 5], [1, 4, 1, 1], [1, 0, 6, 1]]
    assert group.real.tolist() == [[True] * 4, [True] * 2 + [False] * 2, [True] * 3 + [False]]
    assert group.targets.sum(dim=1).tolist() == pytest.approx([1.0] * 3)
    assert group.targets[~group.real].tolist() == [0.0] * 3
