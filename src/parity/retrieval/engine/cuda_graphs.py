"""A forward and its backward captured as CUDA graphs: thousands of launches become two.

Gradients are accumulated inside the graph, in buffers that stay the weights' `grad` from then on.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch

Run = Callable[..., torch.Tensor]
"""A function from int64 tensors to (n, d) hidden states."""

_WARMUPS = 2  # runs before the capture: compilation, then cuBLAS workspaces


@dataclass(slots=True)
class GraphPool:
    """Memory shared by the captured steps of one model, of which one runs at a time.

    Attributes:
        handle: CUDA's handle of the memory pool; None before the first capture.
        stream: stream of all captures; None before the first. The allocator never gives memory
            freed on one stream to another, so separate streams would need memory for each size.
        has_pending_backward: whether the pool holds activations that a backward still needs.
    """

    handle: Any = None
    stream: Any = None
    has_pending_backward: bool = False


class CapturedStep:
    """A step for inputs of one size: captured as CUDA graphs at the first call, then replayed.

    A second forward before the backward of the first, of any size in the pool, would overwrite the
    activations that the backward needs. It runs without the graphs.
    """

    def __init__(self, run: Run, weights: Sequence[torch.nn.Parameter], pool: GraphPool) -> None:
        """Store the function to capture.

        Args:
            run: function of tensors on one CUDA device; its kernels must not depend on the values.
            weights: trainable weights.
            pool: memory shared by all captured steps of the model.
        """
        self._run, self._weights, self._pool = run, weights, pool
        self._graphs: _Graphs | None = None

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return the (n, d) output of `run`, with a graph to the weights if gradients are on."""
        if self._pool.has_pending_backward:
            return self._run(*inputs)
        if self._graphs is None:
            self._graphs = _Graphs(self._run, self._weights, inputs, self._pool)
        if not torch.is_grad_enabled():
            return self._graphs.forward(inputs)
        self._pool.has_pending_backward = True
        anchor = torch.zeros((), device=inputs[0].device, requires_grad=True)
        return cast(torch.Tensor, _Replay.apply(anchor, self, inputs))  # type: ignore[no-untyped-call]

    def replay(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Replay the captured forward; return the hidden states, (n, d)."""
        return self._captured().forward(inputs)

    def replay_backward(self, gradient: torch.Tensor) -> None:
        """Replay the captured backward: add the weights' gradients given the output's, (n, d)."""
        self._pool.has_pending_backward = False
        self._captured().backward(gradient, self._weights)

    def _captured(self) -> "_Graphs":
        if self._graphs is None:
            raise RuntimeError("no CUDA graph is captured")
        return self._graphs


class _Replay(torch.autograd.Function):
    """The captured step as one autograd node; the anchor input makes autograd track it."""

    @staticmethod
    def forward(
        ctx: Any, _anchor: torch.Tensor, step: CapturedStep, inputs: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        ctx.step = step
        return step.replay(inputs)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, None, None]:
        ctx.step.replay_backward(gradient)
        return None, None, None


@contextmanager
def _ignore_stream_warning() -> Iterator[None]:
    """Suppress torch's warning that gradients are accumulated on the capture stream."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream")
        yield


class _Graphs:
    """The forward and backward graphs, with the tensors that they read and write."""

    def __init__(
        self,
        run: Run,
        weights: Sequence[torch.nn.Parameter],
        inputs: Sequence[torch.Tensor],
        pool: GraphPool,
    ) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        # A graph always writes to the memory it wrote to during the capture.
        self._buffers = [cast(torch.Tensor, weight.grad) for weight in weights]
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        state = torch.cuda.get_rng_state()
        if pool.stream is None:
            pool.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own
        stream = pool.stream
        stream.wait_stream(torch.cuda.current_stream())
        with torch.enable_grad(), torch.cuda.stream(stream), _ignore_stream_warning():
            for _ in range(_WARMUPS):
                hidden = run(*self._inputs)
                hidden.backward(torch.zeros_like(hidden))  # type: ignore[no-untyped-call]
            del hidden
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.empty_cache()  # memory of the warm-up runs is not in the graphs' pool
        with torch.enable_grad(), _ignore_stream_warning():
            with torch.cuda.graph(self._forward, pool=pool.handle, stream=stream):
                self._hidden = run(*self._inputs)
            self._gradient = torch.zeros_like(self._hidden)
            pool.handle = self._forward.pool()
            with torch.cuda.graph(self._backward, pool=pool.handle, stream=stream):
                torch.autograd.backward(self._hidden, self._gradient, retain_graph=False)
        torch.cuda.set_rng_state(state)  # the first replay draws the dropout of a first run

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        for buffer, tensor in zip(self._inputs, inputs, strict=True):
            buffer.copy_(tensor)
        self._forward.replay()
        return self._hidden.detach().clone()

    def backward(self, gradient: torch.Tensor, weights: Sequence[torch.nn.Parameter]) -> None:
        for weight, buffer in zip(weights, self._buffers, strict=True):
            if weight.grad is not buffer:  # replaced by None or another tensor
                if weight.grad is None:
                    buffer.zero_()
                else:
                    buffer.copy_(weight.grad)
                weight.grad = buffer
        self._gradient.copy_(gradient)
        self._backward.replay()
