"""The MLP of the last layer, computed only for the last tokens of sequences.

After the attention, a layer processes each token separately, and only the final states of last
tokens are read: about one token in fifty in packs with shared examples. The MLP is four fifths of
a layer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.hooks import RemovableHandle

from parity.retrieval.engine import device as hardware
from parity.retrieval.engine import flex_attention
from parity.retrieval.engine.trie import Pack

_MAX_DISTANCE = {torch.float32: 1e-5, torch.float16: 0.01, torch.bfloat16: 0.05}  # relative


class LastLayer:
    """The last MLP of a model, which can run for selected tokens only.

    Attributes:
        is_supported: whether the model has an MLP that processes each token separately; if not,
            `restrict_to` does nothing.
    """

    def __init__(self, model: Any) -> None:
        """Find the MLP and check by a forward that it processes each token separately.

        Args:
            model: Hugging Face decoder without head, on its device.
        """
        self._selection: tuple[torch.Tensor, torch.Tensor] | None = None
        self._hooks: list[RemovableHandle] = []
        layers = flex_attention.decoder_layers(model)
        self._mlp: Any = getattr(layers[-1], "mlp", None) if layers else None
        self.is_supported = isinstance(self._mlp, torch.nn.Module) and _is_tokenwise(
            self._mlp, model
        )

    @contextmanager
    def restrict_to(self, pack: Pack, device: torch.device) -> Iterator[None]:
        """Run the last MLP only for the last tokens of a pack's sequences inside the context.

        The hidden states of other tokens are wrong inside it, and gradients are not supported. The
        hooks stay until `remove_hooks`, since adding or removing hooks recompiles a layer.

        Args:
            pack: the pack that runs, padding included.
            device: device of the packed tokens.
        """
        if not self.is_supported:
            yield
            return
        if not self._hooks:
            before = self._mlp.register_forward_pre_hook(self._select)
            self._hooks = [before, self._mlp.register_forward_hook(self._expand)]
        rows = np.zeros(len(pack), dtype=np.int64)  # token → row; 0 for states that nobody reads
        rows[pack.last] = np.arange(len(pack.last))
        self._selection = hardware.to_device(pack.last, device), hardware.to_device(rows, device)
        try:
            yield
        finally:
            self._selection = None

    def remove_hooks(self) -> None:
        """Remove the hooks; with them, the last layer would need a compilation of its own."""
        while self._hooks:
            self._hooks.pop().remove()

    def _select(self, _: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if self._selection is None:
            return None
        (states,) = inputs  # (1, n, d)
        return (states[:, self._selection[0].to(states.device)],)

    def _expand(self, _: Any, __: Any, output: torch.Tensor) -> torch.Tensor | None:
        if self._selection is None:
            return None
        return output[:, self._selection[1].to(output.device)]


def _is_tokenwise(mlp: torch.nn.Module, model: Any) -> bool:
    """Return whether a subset of tokens gives the same output as within the full sequence."""
    weight = next(mlp.parameters())
    values = torch.linspace(-1, 1, 4 * model.config.hidden_size, device=weight.device)
    states = values.to(model.dtype).view(1, 4, -1)
    with torch.inference_mode():
        try:
            together, separate = mlp(states)[:, 1::2], mlp(states[:, 1::2])
        except (TypeError, ValueError, RuntimeError):
            return False  # several outputs or more inputs
    distance = (together - separate).float().norm() / together.float().norm()
    return bool(distance <= _MAX_DISTANCE.get(model.dtype, 0.0))
