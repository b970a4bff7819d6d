"""The last layer's MLP, run for the ends of sequences alone.

After its attention a layer looks at each node by itself, and of the last layer only the states at
the ends of sequences are read: of packs behind shared examples one node in fifty. The MLP is four
fifths of a layer.
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

_SAME = {torch.float32: 1e-5, torch.float16: 0.01, torch.bfloat16: 0.05}  # relative distances


class LastLayer:
    """A model's last MLP, which can be told of which nodes its output is wanted.

    Attributes:
        able: whether the model has one that looks at each node by itself; else `only` does nothing.
    """

    def __init__(self, model: Any) -> None:
        """Find the MLP and try it out, for what a module does is not told by its name.

        Args:
            model: a Hugging Face decoder without its head, on its device.
        """
        self._wanted: tuple[torch.Tensor, torch.Tensor] | None = None
        self._hooks: list[RemovableHandle] = []
        layers = flex_attention.layers(model)
        self._mlp: Any = getattr(layers[-1], "mlp", None) if layers else None
        self.able = isinstance(self._mlp, torch.nn.Module) and _by_node(self._mlp, model)

    @contextmanager
    def only(self, pack: Pack, device: torch.device) -> Iterator[None]:
        """Within, states of nodes that end no sequence are not the model's. Not for gradients.

        The hooks stay until `off`, for a layer whose hooks come and go is compiled each time.

        Args:
            pack: as it runs.
            device: where its nodes lie.
        """
        if not self.able:
            yield
            return
        if not self._hooks:
            before = self._mlp.register_forward_pre_hook(self._few)
            self._hooks = [before, self._mlp.register_forward_hook(self._all)]
        place = np.zeros(len(pack), dtype=np.int64)  # node → row; a wrong one where none is read
        place[pack.last] = np.arange(len(pack.last))
        self._wanted = hardware.sent(pack.last, device), hardware.sent(place, device)
        try:
            yield
        finally:
            self._wanted = None

    def off(self) -> None:
        """Leave the model as it was: with hooks its last layer would be compiled by itself."""
        while self._hooks:
            self._hooks.pop().remove()

    def _few(self, _: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if self._wanted is None:
            return None
        (states,) = given  # (1, n, d)
        return (states[:, self._wanted[0].to(states.device)],)

    def _all(self, _: Any, __: Any, output: torch.Tensor) -> torch.Tensor | None:
        if self._wanted is None:
            return None
        return output[:, self._wanted[1].to(output.device)]


def _by_node(mlp: torch.nn.Module, model: Any) -> bool:
    """Return whether some of the nodes alone give what they give among others."""
    weight = next(mlp.parameters())
    values = torch.linspace(-1, 1, 4 * model.config.hidden_size, device=weight.device)
    states = values.to(model.dtype).view(1, 4, -1)
    with torch.inference_mode():
        try:
            among, alone = mlp(states)[:, 1::2], mlp(states[:, 1::2])
        except (TypeError, ValueError, RuntimeError):
            return False  # several outputs, or it wants more than the states
    apart = (among - alone).float().norm() / among.float().norm()
    return bool(apart <= _SAME.get(model.dtype, 0.0))
