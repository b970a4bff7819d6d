"""A forward and its backward as CUDA graphs: thousands of launches become two.

Gradients are added up inside the graph, into buffers that belong to the weights from then on.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch

Run = Callable[..., torch.Tensor]
"""Takes tensors of integers, returns (n, d) hidden states."""

_WARMUPS = 2  # runs before it is recorded: compilation, then cuBLAS's own workspaces


@dataclass(slots=True)
class GraphPool:
    """The memory that recordings of one model share, for one of them runs at a time.

    Attributes:
        pool: CUDA's handle of it, once there is a recording.
        stream: on which all are recorded, once there is one: what is free again after work on one
            stream is never given to another's, so each size would take memory of its own.
        waits: whether activations lie in it that wait for their backward.
    """

    pool: Any = None
    stream: Any = None
    waits: bool = False


class CapturedStep:
    """What `run` does for inputs of one size, recorded when first asked, replayed from then on.

    A second forward before the first one's backward, of whatever size, is not replayed, for it
    would overwrite what that backward needs; it runs as it is written.
    """

    def __init__(self, run: Run, weights: Sequence[torch.nn.Parameter], room: GraphPool) -> None:
        """Remember what to record.

        Args:
            run: of tensors on one CUDA device; the same kernels whatever their values.
            weights: those whose gradients are wanted.
            room: shared by all recordings of the model.
        """
        self._run, self._weights, self._room = run, weights, room
        self._graphs: _Graphs | None = None

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return what `run` returns, connected to the weights where gradients are wanted."""
        if self._room.waits:
            return self._run(*inputs)
        if self._graphs is None:
            self._graphs = _Graphs(self._run, self._weights, inputs, self._room)
        if not torch.is_grad_enabled():
            return self._graphs.forward(inputs)
        self._room.waits = True
        anchor = torch.zeros((), device=inputs[0].device, requires_grad=True)
        return cast(torch.Tensor, _Replay.apply(anchor, self, inputs))  # type: ignore[no-untyped-call]

    def replay(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Run the recorded forward."""
        return self._made().forward(inputs)

    def back(self, slope: torch.Tensor) -> None:
        """Run the recorded backward: add the weights' gradients for the output's, (n, d)."""
        self._room.waits = False
        self._made().backward(slope, self._weights)

    def _made(self) -> "_Graphs":
        if self._graphs is None:
            raise RuntimeError("nothing is recorded")
        return self._graphs


class _Replay(torch.autograd.Function):
    """The recording as one node of autograd; its first input only makes it one."""

    @staticmethod
    def forward(
        ctx: Any, _anchor: torch.Tensor, recorded: CapturedStep, inputs: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        ctx.recorded = recorded
        return recorded.replay(inputs)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[None, None, None]:
        ctx.recorded.back(slope)
        return None, None, None


@contextmanager
def _one_stream_is_meant() -> Iterator[None]:
    """Keep torch from telling that gradients are added up on the stream that records them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream")
        yield


class _Graphs:
    """The two graphs with the tensors they read and write."""

    def __init__(
        self,
        run: Run,
        weights: Sequence[torch.nn.Parameter],
        inputs: Sequence[torch.Tensor],
        room: GraphPool,
    ) -> None:
        self._inputs = [one.clone() for one in inputs]
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        # A graph writes where it wrote when it was recorded.
        self._buffers = [cast(torch.Tensor, weight.grad) for weight in weights]
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        state = torch.cuda.get_rng_state()
        if room.stream is None:
            room.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own
        aside = room.stream
        aside.wait_stream(torch.cuda.current_stream())
        with torch.enable_grad(), torch.cuda.stream(aside), _one_stream_is_meant():
            for _ in range(_WARMUPS):
                hidden = run(*self._inputs)
                hidden.backward(torch.zeros_like(hidden))  # type: ignore[no-untyped-call]
            del hidden
        torch.cuda.current_stream().wait_stream(aside)
        torch.cuda.empty_cache()  # what the runs took is not the recordings' memory
        with torch.enable_grad(), _one_stream_is_meant():
            with torch.cuda.graph(self._forward, pool=room.pool, stream=aside):
                self._hidden = run(*self._inputs)
            self._slope = torch.zeros_like(self._hidden)
            room.pool = self._forward.pool()
            with torch.cuda.graph(self._backward, pool=room.pool, stream=aside):
                torch.autograd.backward(self._hidden, self._slope, retain_graph=False)
        torch.cuda.set_rng_state(state)  # the first replay draws what the first run would have

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._forward.replay()
        return self._hidden.detach().clone()

    def backward(self, slope: torch.Tensor, weights: Sequence[torch.nn.Parameter]) -> None:
        for weight, buffer in zip(weights, self._buffers, strict=True):
            if weight.grad is not buffer:  # set to None, or to another tensor, since
                if weight.grad is None:
                    buffer.zero_()
                else:
                    buffer.copy_(weight.grad)
                weight.grad = buffer
        self._slope.copy_(slope)
        self._backward.replay()
