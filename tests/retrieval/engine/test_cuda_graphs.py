"""A recording is replayed when it may be, and leaves gradients where they are looked for."""

from collections.abc import Sequence

import pytest
import torch

from parity.retrieval.engine import cuda_graphs
from parity.retrieval.engine.cuda_graphs import CapturedStep, GraphPool


class Graphs:
    """Stands in for CUDA graphs on a machine without: runs again instead of replaying."""

    made = 0

    def __init__(
        self, run: cuda_graphs.Run, weights: Sequence[torch.nn.Parameter], *_: object
    ) -> None:
        self._run, self.replays = run, 0
        type(self).made += 1

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        self.replays += 1
        self._inputs = inputs
        return self._run(*inputs).detach()

    def backward(self, slope: torch.Tensor, weights: Sequence[torch.nn.Parameter]) -> None:
        with torch.enable_grad():
            self._run(*self._inputs).backward(slope)  # type: ignore[no-untyped-call]


def test_a_recording_is_not_replayed_while_its_backward_is_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda_graphs, "_Graphs", Graphs)
    weight = torch.nn.Parameter(torch.arange(6.0).view(2, 3))
    ran: list[int] = []

    def run(ids: torch.Tensor) -> torch.Tensor:
        ran.append(len(ids))
        return weight[ids] ** 2

    room = GraphPool()
    one, another = CapturedStep(run, [weight], room), CapturedStep(run, [weight], room)
    ids, others = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 0])
    with torch.no_grad():
        torch.testing.assert_close(one(ids), run(ids))  # GradCache's first pass replays as well
    graphs = one._graphs
    assert isinstance(graphs, Graphs)
    assert graphs.replays == 1
    first = one(ids)
    second = another(others)  # by itself: the first one's activations are still wanted
    assert graphs.replays == 2
    (first.sum() + second.sum()).backward()
    expected = 2 * weight.detach() * torch.tensor([[3.0], [3.0]])
    torch.testing.assert_close(weight.grad, expected)
    one(ids).sum().backward()
    assert graphs.replays == 3
    assert Graphs.made == 1


def step(one: CapturedStep, ids: torch.Tensor) -> None:
    one(ids).sum().backward()  # type: ignore[no-untyped-call]  # torch's own


@pytest.mark.gpu
def test_gradients_add_up_in_the_weights_whatever_became_of_their_buffers() -> None:
    weight = torch.nn.Parameter(torch.arange(6.0, device="cuda").view(2, 3))
    ids = torch.tensor([0, 1, 1], device="cuda")
    one = CapturedStep(lambda places: weight[places] ** 2, [weight], GraphPool())
    once = 2 * weight.detach() * torch.tensor([[1.0], [2.0]], device="cuda")
    step(one, ids)
    torch.testing.assert_close(weight.grad, once)  # recording itself added nothing
    step(one, ids)
    torch.testing.assert_close(weight.grad, 2 * once)
    weight.grad = None
    step(one, ids)
    torch.testing.assert_close(weight.grad, once)
    weight.grad = torch.ones_like(weight)
    step(one, ids)
    torch.testing.assert_close(weight.grad, once + 1)
    with torch.no_grad():
        weight.add_(1.0)  # an optimizer's step is seen by the recording
    weight.grad = None
    step(one, ids)
    torch.testing.assert_close(weight.grad, once + torch.tensor([[2.0], [4.0]], device="cuda"))


@pytest.mark.gpu
def test_recordings_of_several_sizes_take_the_memory_of_the_largest() -> None:
    weight = torch.nn.Parameter(torch.full((256, 256), 1 / 256, device="cuda"))
    room = GraphPool()

    def run(ids: torch.Tensor) -> torch.Tensor:
        found = ids[:, None].float().expand(-1, 256)
        for _ in range(32):
            found = torch.tanh(found @ weight)
        return found

    held = []
    recordings = []  # whose memory is theirs as long as they are
    for size in (65536, 49152, 32768):  # 2 GiB of activations, and less
        recordings.append(CapturedStep(run, [weight], room))
        step(recordings[-1], torch.arange(size, device="cuda"))
        torch.cuda.empty_cache()
        held.append(torch.cuda.memory_reserved())
    assert held[-1] <= 1.2 * held[0]
