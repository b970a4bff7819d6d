"""Run packs through a causal model in the way that is fastest where it lies.

On GPUs with FlexAttention the decoder layers are compiled, once for all layers and sizes. Small
models wait for kernel launches rather than for the kernels, so their training steps are recorded as
CUDA graphs, one a size, and replayed. What is computed is the same in all of these; the bits differ
between attention layouts and devices.
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
from parity.retrieval.engine.trie import Nodes, Pack
from parity.run.progress import tell

_SMALL = 10**9  # weights below which a step on a large GPU waits for launches
_PARTS = 8  # sizes recorded from one power of two to the next: each takes as long as some steps
_VARIANTS = 64  # models, windows and uses that may be compiled before torch gives up on compiling


class Forward:
    """How a model's packs run.

    Attributes:
        kind: the attention layout.
    """

    def __init__(
        self, device: torch.device, dtype: torch.dtype, kind: Backend, tail: LastLayer | None = None
    ) -> None:
        """Remember where and how; a model is compiled when it first runs.

        Args:
            device: where the model's inputs go.
            dtype: the compute dtype.
            kind: the attention layout.
            tail: of the model; None runs all of its nodes to the end.
        """
        self.kind: Backend = kind
        self._device, self._dtype, self._tail = device, dtype, tail
        self._compiled: dict[int, _Compiled] = {}

    def states(self, model: Any, pack: Pack) -> torch.Tensor:
        """Return the last hidden states (m, d) at the ends of a pack's own sequences.

        There is a graph where one is wanted.

        Args:
            model: a decoder loaded with `attention.NAME`, with its adapter.
            pack: the trie.
        """
        full = flex_attention.filled(pack, BLOCK) if self.kind == "flex" else pack
        try:
            with self._asking(model, full):
                nodes = self._hidden(model, full)  # (n, d)
        except TorchDynamoException as error:
            first = str(error).strip().splitlines()[0][:120]
            tell(f"layers cannot be compiled here ({first}): goes on with attention in blocks")
            flex_attention.uncompile(model)
            self.kind = "blocks"
            return self.states(model, pack)
        nodes = nodes.to(self._device)  # the last layer may lie on another GPU
        return nodes[hardware.sent(pack.last, self._device)]

    def _hidden(self, model: Any, pack: Pack) -> torch.Tensor:
        if self.kind != "flex":
            return attention.forward(model, pack, self._device, self.kind)
        return self._of(model).hidden(pack, self._device)

    def _asking(self, model: Any, pack: Pack) -> AbstractContextManager[None]:
        """Have the last layer run to its end for what is read, where nothing is learnt from it.

        A pass that a later one with gradients repeats must draw the same dropout.
        """
        if self._tail is None:
            return nullcontext()
        if model.training or torch.is_grad_enabled():
            self._tail.off()
            return nullcontext()
        return self._tail.only(pack, self._device)

    def release(self) -> None:
        """Give the memory of recordings back; they are made anew where they are wanted."""
        self._compiled.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _of(self, model: Any) -> "_Compiled":
        if id(model) not in self._compiled:  # it is held by what is kept, so its id is its own
            self._compiled[id(model)] = _Compiled(model, self._dtype)
        return self._compiled[id(model)]


class _Compiled:
    """One model with compiled layers, and the recordings of its training steps."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        flex_attention.compile_layers(model)
        self._model, self._dtype = model, dtype
        self._window = getattr(model.config, "sliding_window", None) or 0
        self._recorded: dict[int, CapturedStep] = {}
        self._room = GraphPool()
        # To look through thousands of modules takes longer than a small model's whole step.
        self._launches = sum(int(weight.numel()) for weight in model.parameters()) < _SMALL
        self._trained = [weight for weight in model.parameters() if weight.requires_grad]

    def hidden(self, pack: Pack, device: torch.device) -> torch.Tensor:
        """Return (n, d) of a pack of whole blocks."""
        # A recording is of one forward: checkpointing's second one is not in it.
        checkpoints = self._model.is_gradient_checkpointing
        records = self._model.training and self._launches and not checkpoints
        full = flex_attention.filled(pack, step(len(pack))) if records else pack
        ids, depth, end = (_on(device, one) for one in (full.ids, full.depth, full.end))
        with _any_size():
            if records:
                if len(full) not in self._recorded:
                    self._recorded[len(full)] = CapturedStep(self._run, self._trained, self._room)
                hidden = self._recorded[len(full)](ids, depth, end)
            else:
                hidden = self._run(ids, depth, end, deepest=int(pack.depth.max()))
        return hidden[: len(pack)]

    def _run(
        self, ids: torch.Tensor, depth: torch.Tensor, end: torch.Tensor, deepest: int = 2**31
    ) -> torch.Tensor:
        """Return (n, d) of ids, depth and end, each (n,) int64."""
        window = self._window if deepest >= self._window else 0
        layout = flex_attention.Flex(end.int(), depth.int(), (0, self._window), window)
        # An adapter's weights are fp32 and would drag its part of every layer there.
        half = self._dtype in (torch.bfloat16, torch.float16)
        with torch.autocast(ids.device.type, self._dtype, enabled=half, cache_enabled=False):
            output = self._model(
                input_ids=ids[None], position_ids=depth[None], use_cache=False, trie=layout
            )
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden


def step(nodes: int) -> int:
    """Return the multiple to which a pack is filled whose step is recorded, at least 256.

    >>> [step(count) for count in (100, 3000, 5000, 16384)]
    [256, 256, 512, 1024]

    Args:
        nodes: of the pack.
    """
    return max(2 * BLOCK, (1 << (nodes - 1).bit_length()) // 2 // _PARTS)


def _on(device: torch.device, values: Nodes) -> torch.Tensor:
    return hardware.sent(values.astype(np.int64), device)


@contextmanager
def _any_size() -> Iterator[None]:
    """Compile for all sizes at once: a training of a 7B model is no slower for it."""
    with torch._dynamo.config.patch(  # noqa: SLF001  # there is no public name
        assume_static_by_default=False,
        automatic_dynamic_shapes=False,
        specialize_float=True,  # a bound of scores is part of the kernel
        recompile_limit=_VARIANTS,
        skip_nnmodule_hook_guards=False,  # a tail is hooks
    ):
        yield
