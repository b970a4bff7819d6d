"""Losses compared with their definitions in float64, one query at a time."""

import math

import pytest
import torch

from parity.training.loss import PassageGroups, distillation_loss, info_nce


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=generator), dim=-1)


def slow_loss(
    queries: torch.Tensor,
    passages: torch.Tensor,
    target: list[int],
    masked: list[set[int]],
    temperature: float,
) -> float:
    losses = []
    for row, positive in enumerate(target):
        cosines = [
            sum(a * b for a, b in zip(queries[row].tolist(), passage.tolist(), strict=True))
            for passage in passages
        ]
        unmasked = [cosines[column] for column in range(len(cosines)) if column not in masked[row]]
        total = sum(math.exp((cosine - cosines[positive]) / temperature) for cosine in unmasked)
        losses.append(math.log(total))
    return sum(losses) / len(losses)


def mask(rows: list[set[int]], width: int) -> torch.Tensor:
    return torch.tensor([[column in row for column in range(width)] for row in rows])


@pytest.mark.parametrize("temperature", [0.02, 0.05, 1.0])
def test_the_loss_is_the_mean_negative_log_softmax_of_the_positives(temperature: float) -> None:
    queries, passages = unit(3, 8, 0), unit(7, 8, 1)
    target, masked = [0, 4, 4], [{1, 2}, set(), {6}]
    loss = info_nce(queries, passages, torch.tensor(target), mask(masked, 7), temperature)
    expected = slow_loss(queries, passages, target, masked, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_masked_passage_gets_no_gradient_from_the_query_that_masks_it() -> None:
    queries, passages = unit(1, 8, 0), unit(4, 8, 1).requires_grad_()
    info_nce(queries, passages, torch.tensor([1]), mask([{2}], 4), 0.05).backward()  # type: ignore[no-untyped-call]
    assert passages.grad is not None
    assert passages.grad[2].abs().max() == 0
    assert all(passages.grad[column].abs().max() > 0 for column in (0, 1, 3))


def test_a_mask_on_the_target_is_ignored() -> None:
    queries, passages = unit(2, 8, 0), unit(4, 8, 1)
    target = torch.tensor([1, 3])
    plain = info_nce(queries, passages, target, mask([{0}, set()], 4), 0.02)
    masked = info_nce(queries, passages, target, mask([{0, 1}, {3}], 4), 0.02)
    assert masked.item() == plain.item()


def test_a_batch_with_only_one_positive_has_zero_loss() -> None:
    loss = info_nce(unit(1, 8, 0), unit(1, 8, 1), torch.tensor([0]), mask([set()], 1), 0.02)
    assert loss.item() == 0


def test_a_repeated_passage_increases_the_loss() -> None:
    queries, passages = unit(2, 8, 0), unit(4, 8, 1)
    target = torch.tensor([0, 1])
    once = info_nce(queries, passages, target, mask([set(), set()], 4), 0.05)
    listed = torch.cat([passages, passages[2:]])
    twice = info_nce(queries, listed, target, mask([set(), set()], 6), 0.05)
    assert twice.item() > once.item()


KINDS = ["kl_div", "m3_kd_loss"]
OWN_COLUMNS = [[0, 3, 4, 5], [1, 4], [1, 0, 6]]
"""Columns of each query's passages: ragged, with a shared positive that is another's negative."""
TEACHER = [[2.0, 1.0, -1.0, 0.5], [0.5, 1.5], [3.0, 2.5, -2.0]]
MASKED: list[set[int]] = [{1, 2}, set(), {5}]


def softmax(scores: list[float]) -> list[float]:
    total = sum(map(math.exp, scores))
    return [math.exp(score) / total for score in scores]


def cross_entropy(row: list[float], columns: set[int], column: int) -> float:
    return math.log(sum(math.exp(row[other] - row[column]) for other in columns))


def slow_distillation(kind: str, scores: torch.Tensor) -> float:
    """Return the distillation loss by its definition, one query and one passage at a time."""
    losses = []
    for row, columns, teacher, masked in zip(
        scores.tolist(), OWN_COLUMNS, TEACHER, MASKED, strict=True
    ):
        remaining = set(range(len(row))) - masked
        loss = cross_entropy(row, remaining, columns[0]) if kind == "kl_div" else 0.0
        for column, weight in zip(columns, softmax(teacher), strict=True):
            candidates = set(columns) if kind == "kl_div" else remaining
            loss += weight * cross_entropy(row, candidates, column)
            remaining = remaining - {column}
        losses.append(loss)
    return sum(losses) / len(losses)


def student_scores() -> torch.Tensor:
    return (unit(3, 8, 0) @ unit(7, 8, 1).T / 0.2).requires_grad_()


@pytest.mark.parametrize("kind", KINDS)
def test_distillation_on_ragged_groups_matches_its_definition(kind: str) -> None:
    scores = student_scores()
    loss = distillation_loss(
        kind, scores, mask(MASKED, 7), PassageGroups.from_lists(OWN_COLUMNS, TEACHER, scores.device)
    )
    assert loss.item() == pytest.approx(slow_distillation(kind, scores.detach()), rel=1e-5)
    (slopes,) = torch.autograd.grad(loss, scores)
    assert torch.isfinite(slopes).all()
    assert slopes[0, [1, 2]].abs().max() == 0  # masked
    nudge = torch.zeros_like(scores)
    nudge[2, 0] = 1e-2
    rise = slow_distillation(kind, scores.detach() + nudge) - slow_distillation(
        kind, scores.detach() - nudge
    )
    assert slopes[2, 0].item() == pytest.approx(rise / 2e-2, rel=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_distillation_does_not_depend_on_the_order_of_passages(kind: str) -> None:
    scores, order = student_scores(), [4, 6, 0, 2, 5, 1, 3]
    permuted = [[order.index(column) for column in columns] for columns in OWN_COLUMNS]
    hidden = mask(MASKED, 7)
    first = distillation_loss(
        kind, scores, hidden, PassageGroups.from_lists(OWN_COLUMNS, TEACHER, scores.device)
    )
    second = distillation_loss(
        kind,
        scores[:, order],
        hidden[:, order],
        PassageGroups.from_lists(permuted, TEACHER, scores.device),
    )
    assert second.item() == pytest.approx(first.item(), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_teacher_scores_apply_to_their_own_passages(kind: str) -> None:
    scores, hidden = student_scores(), mask(MASKED, 7)
    first = distillation_loss(
        kind, scores, hidden, PassageGroups.from_lists(OWN_COLUMNS, TEACHER, scores.device)
    )
    reversed_scores = [row[::-1] for row in TEACHER]
    second = distillation_loss(
        kind, scores, hidden, PassageGroups.from_lists(OWN_COLUMNS, reversed_scores, scores.device)
    )
    assert abs(second.item() - first.item()) > 1e-2


def test_groups_are_padded_with_the_positive_at_zero_weight() -> None:
    group = PassageGroups.from_lists(OWN_COLUMNS, TEACHER, torch.device("cpu"))
    assert group.columns.tolist() == [[0, 3, 4, 5], [1, 4, 1, 1], [1, 0, 6, 1]]
    assert group.is_real.tolist() == [[True] * 4, [True] * 2 + [False] * 2, [True] * 3 + [False]]
    assert group.targets.sum(dim=1).tolist() == pytest.approx([1.0] * 3)
    assert group.targets[~group.is_real].tolist() == [0.0] * 3
