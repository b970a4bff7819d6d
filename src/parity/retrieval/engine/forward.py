"""The forward pass of packs through a causal model, by the fastest way on its device.

On GPUs with FlexAttention the decoder layers are compiled, once for all layers and sizes. Small
models are bound by kernel launches, so their training steps are captured as CUDA graphs, one for
each size, and replayed. All ways compute the same function; bits differ between attention layouts
and devices.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch._dynamo.exc import TorchDynamoException

from parity.retrieval.engine import attention, flex_attention
from parity.retrieval.engine import device as hardware
from parity.retrieval.engine.attention import Backend
from parity.retrieval.engine.cuda_graphs import CapturedStep, GraphPool
from parity.retrieval.engine.flex_attention import BLOCK
from parity.retrieval.engine.last_layer import LastLayer
from parity.retrieval.engine.trie import Pack, PackedTokens
from parity.run.progress import log

_SMALL_MODEL = 10**9  # weights below which a step on a large GPU is bound by launches
_STEPS_PER_DOUBLING = (
    8  # captured sizes between powers of two; a capture takes as long as a few steps
)
_MAX_COMPILATIONS = 64  # torch stops compiling after so many combinations of model, window and mode


class Forward:
    """The forward pass of packs.

    Attributes:
        kind: name of the attention layout.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        kind: Backend,
        last_layer: LastLayer | None = None,
    ) -> None:
        """Store the settings; a model is compiled at its first run.

        Args:
            device: device of the model's inputs.
            dtype: compute dtype.
            kind: name of the attention layout.
            last_layer: last layer of the model; None runs its MLP for all tokens.
        """
        self.kind: Backend = kind
        self._device, self._dtype, self._last_layer = device, dtype, last_layer
        self._compiled: dict[int, _Compiled] = {}

    def states(self, model: Any, pack: Pack) -> torch.Tensor:
        """Return the last hidden states, (m, d), at the last tokens of a pack's sequences.

        The states carry an autograd graph if gradients are enabled.

        Args:
            model: decoder with the attention `attention.NAME`, and its adapter.
            pack: trie of m sequences.
        """
        padded = flex_attention.pad_pack(pack, BLOCK) if self.kind == "flex" else pack
        try:
            with self._last_layer_context(model, padded):
                hidden = self._hidden(model, padded)  # (n, d)
        except TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0][:120]
            log(f"layers cannot be compiled ({reason}): continues with attention in blocks")
            flex_attention.uncompile_layers(model)
            self.kind = "blocks"
            return self.states(model, pack)
        hidden = hidden.to(self._device)  # the last layer may lie on another GPU
        return hidden[hardware.to_device(pack.last, self._device)]

    def _hidden(self, model: Any, pack: Pack) -> torch.Tensor:
        if self.kind != "flex":
            return attention.forward(model, pack, self._device, self.kind)
        return self._compiled_model(model).hidden(pack, self._device)

    def _last_layer_context(self, model: Any, pack: Pack) -> AbstractContextManager[None]:
        """Return a context in which the last MLP runs only for last tokens, except in training.

        In training, a pass without gradients must draw the dropout of the later pass with them.
        """
        if self._last_layer is None:
            return nullcontext()
        if model.training or torch.is_grad_enabled():
            self._last_layer.remove_hooks()
            return nullcontext()
        return self._last_layer.restrict_to(pack, self._device)

    def release(self) -> None:
        """Free the memory of captured steps; they are captured again when needed."""
        self._compiled.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _compiled_model(self, model: Any) -> "_Compiled":
        if id(model) not in self._compiled:  # the dict keeps the model alive, so ids are unique
            self._compiled[id(model)] = _Compiled(model, self._dtype)
        return self._compiled[id(model)]


class _Compiled:
    """One model with compiled layers and captured training steps."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        flex_attention.compile_layers(model)
        self._model, self._dtype = model, dtype
        self._window = getattr(model.config, "sliding_window", None) or 0
        self._captured: dict[int, CapturedStep] = {}
        self._pool = GraphPool()
        # Iterating over thousands of modules takes longer than a step of a small model.
        self._is_small = sum(int(weight.numel()) for weight in model.parameters()) < _SMALL_MODEL
        self._trained = [weight for weight in model.parameters() if weight.requires_grad]

    def hidden(self, pack: Pack, device: torch.device) -> torch.Tensor:
        """Return the hidden states, (n, d), of a pack of whole blocks."""
        # A graph captures one forward; gradient checkpointing runs a second one.
        recomputes = self._model.is_gradient_checkpointing
        captures = self._model.training and self._is_small and not recomputes
        padded = flex_attention.pad_pack(pack, size_step(len(pack))) if captures else pack
        ids, depth, end = (
            _to_device(device, column) for column in (padded.ids, padded.depth, padded.end)
        )
        with _dynamic_sizes():
            if captures:
                if len(padded) not in self._captured:
                    self._captured[len(padded)] = CapturedStep(self._run, self._trained, self._pool)
                hidden = self._captured[len(padded)](ids, depth, end)
            else:
                hidden = self._run(ids, depth, end, deepest=int(pack.depth.max()))
        return hidden[: len(pack)]

    def _run(
        self, ids: torch.Tensor, depth: torch.Tensor, end: torch.Tensor, deepest: int = 2**31
    ) -> torch.Tensor:
        """Return the hidden states, (n, d), of ids, depth and end, each (n,) int64."""
        window = self._window if deepest >= self._window else 0
        layout = flex_attention.FlexLayout(end.int(), depth.int(), (0, self._window), window)
        # An adapter's weights are fp32 and would make its part of every layer run in fp32.
        half = self._dtype in (torch.bfloat16, torch.float16)
        with torch.autocast(ids.device.type, self._dtype, enabled=half, cache_enabled=False):
            output = self._model(
                input_ids=ids[None], position_ids=depth[None], use_cache=False, trie=layout
            )
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden


def size_step(tokens: int) -> int:
    """Return the multiple to which a pack is padded for capture, at least 256 tokens.

    >>> [size_step(count) for count in (100, 3000, 5000, 16384)]
    [256, 256, 512, 1024]

    Args:
        tokens: number of tokens in the pack.
    """
    return max(2 * BLOCK, (1 << (tokens - 1).bit_length()) // 2 // _STEPS_PER_DOUBLING)


def _to_device(device: torch.device, values: PackedTokens) -> torch.Tensor:
    return hardware.to_device(values.astype(np.int64), device)


@contextmanager
def _dynamic_sizes() -> Iterator[None]:
    """Compile for dynamic sizes; training a 7B model is not slower with it."""
    with torch._dynamo.config.patch(  # noqa: SLF001  # torch has no public API
        assume_static_by_default=False,
        automatic_dynamic_shapes=False,
        specialize_float=True,  # the score cap is a constant of the kernel
        recompile_limit=_MAX_COMPILATIONS,
        skip_nnmodule_hook_guards=False,  # `LastLayer` uses hooks
    ):
        yield
