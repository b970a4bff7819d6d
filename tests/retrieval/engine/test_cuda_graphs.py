"""CUDA graphs are replayed only when it is safe, and accumulate gradients in `grad`."""

from collections.abc import Sequence

import pytest
import torch

from parity.retrieval.engine import cuda_graphs
from parity.retrieval.engine.cuda_graphs import CapturedStep, GraphPool


class FakeGraphs:
    """A replacement for CUDA graphs on a CPU: it runs again instead of replaying."""

    captures = 0

    def __init__(
        self, run: cuda_graphs.Run, weights: Sequence[torch.nn.Parameter], *_: object
    ) -> None:
        self._run, self.replays = run, 0
        type(self).captures += 1

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        self.replays += 1
        self._inputs = inputs
        return self._run(*inputs).detach()

    def backward(self, slope: torch.Tensor, weights: Sequence[torch.nn.Parameter]) -> None:
        with torch.enable_grad():
            self._run(*self._inputs).backward(slope)  # type: ignore[no-untyped-call]


def test_a_graph_is_not_replayed_while_a_backward_is_pending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda_graphs, "_Graphs", FakeGraphs)
    weight = torch.nn.Parameter(torch.arange(6.0).view(2, 3))
    lengths: list[int] = []

    def run(ids: torch.Tensor) -> torch.Tensor:
        lengths.append(len(ids))
        return weight[ids] ** 2

    pool = GraphPool()
    step, other_step = CapturedStep(run, [weight], pool), CapturedStep(run, [weight], pool)
    ids, other_ids = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 0])
    with torch.no_grad():
        torch.testing.assert_close(step(ids), run(ids))  # GradCache's first pass is replayed, too
    graphs = step._graphs
    assert isinstance(graphs, FakeGraphs)
    assert graphs.replays == 1
    first = step(ids)
    second = other_step(other_ids)  # not replayed: the first backward still needs its activations
    assert graphs.replays == 2
    (first.sum() + second.sum()).backward()
    expected = 2 * weight.detach() * torch.tensor([[3.0], [3.0]])
    torch.testing.assert_close(weight.grad, expected)
    step(ids).sum().backward()
    assert graphs.replays == 3
    assert FakeGraphs.captures == 1


def run_step(step: CapturedStep, ids: torch.Tensor) -> None:
    step(ids).sum().backward()  # type: ignore[no-untyped-call]  # torch's own


@pytest.mark.gpu
def test_gradients_accumulate_even_if_the_buffers_are_replaced() -> None:
    weight = torch.nn.Parameter(torch.arange(6.0, device="cuda").view(2, 3))
    ids = torch.tensor([0, 1, 1], device="cuda")
    step = CapturedStep(lambda indices: weight[indices] ** 2, [weight], GraphPool())
    expected = 2 * weight.detach() * torch.tensor([[1.0], [2.0]], device="cuda")
    run_step(step, ids)
    torch.testing.assert_close(weight.grad, expected)  # the capture adds nothing
    run_step(step, ids)
    torch.testing.assert_close(weight.grad, 2 * expected)
    weight.grad = None
    run_step(step, ids)
    torch.testing.assert_close(weight.grad, expected)
    weight.grad = torch.ones_like(weight)
    run_step(step, ids)
    torch.testing.assert_close(weight.grad, expected + 1)
    with torch.no_grad():
        weight.add_(1.0)  # the graph reads the updated weight
    weight.grad = None
    run_step(step, ids)
    torch.testing.assert_close(weight.grad, expected + torch.tensor([[2.0], [4.0]], device="cuda"))


@pytest.mark.gpu
def test_graphs_of_several_sizes_share_the_memory_of_the_largest() -> None:
    weight = torch.nn.Parameter(torch.full((256, 256), 1 / 256, device="cuda"))
    pool = GraphPool()

    def run(ids: torch.Tensor) -> torch.Tensor:
        hidden = ids[:, None].float().expand(-1, 256)
        for _ in range(32):
            hidden = torch.tanh(hidden @ weight)
        return hidden

    reserved = []
    steps = []  # keeps their memory alive
    for size in (65536, 49152, 32768):  # at most 2 GiB of activations
        steps.append(CapturedStep(run, [weight], pool))
        run_step(steps[-1], torch.arange(size, device="cuda"))
        torch.cuda.empty_cache()
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[-1] <= 1.2 * reserved[0]
