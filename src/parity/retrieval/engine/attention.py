"""Run a causal model over a packed trie: hidden states of every node from one forward.

One attention function, registered with transformers by name, asks a `Layout` what sees what. Three
layouts give the same numbers: `dense` masks all pairs (the reference), `blocks` gathers for each
block of nodes the ancestors it sees (CPUs, and GPUs without FlexAttention's needs), `flex` hands a
block mask to FlexAttention (`flex.py`).
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from transformers import AttentionInterface

from parity.retrieval.engine import trie
from parity.retrieval.engine.block_attention import Blocks, Heads, additive, scaled
from parity.retrieval.engine.trie import Pack
from parity.run.errors import BadConfig, Mismatch

NAME = "prefix_trie"
"""The attention implementation that a model is loaded with."""

Backend = Literal["flex", "blocks", "dense"]

_ASKED = [1, 2, 3, 4], [1, 5, 6]  # token ids that try a model out
_SAME = 1e-4  # of the largest value: the same numbers in another order, in any precision
_AGREE = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}  # relative distances


class Layout(Protocol):
    """What sees what in one pack, on the device where it is asked."""

    def attend(
        self, query: Heads, key: Heads, value: Heads, scale: float, window: int, cap: float
    ) -> Heads:
        """Return the attention's output (1, heads, n, d).

        Args:
            query: (1, h, n, d).
            key: (1, g, n, d); h is a multiple of g.
            value: (1, g, n, d).
            scale: of the scores.
            window: positions a node looks back on, itself included; 0 for all.
            cap: bound of the scores by a tanh, as Gemma 2 has it; 0 for none.
        """


def install() -> None:
    """Make `NAME` known to transformers, which gives it no mask: the layout holds it."""
    AttentionInterface.register(NAME, _attention)


def _attention(
    module: Any,
    query: Heads,
    key: Heads,
    value: Heads,
    attention_mask: None,  # noqa: ARG001  # transformers hands it over, None for this one
    **how: Any,
) -> tuple[torch.Tensor, None]:
    """Answer transformers' attention layers; without a layout, for one sequence by itself."""
    layout: Layout = how.get("trie") or _alone(query)
    scale = how.get("scaling") or module.head_dim**-0.5
    window, cap = how.get("sliding_window") or 0, how.get("softcap") or 0.0
    return layout.attend(query, key, value, scale, window, cap).transpose(1, 2), None


def _alone(query: Heads) -> "Dense":
    if query.shape[0] > 1:
        raise Mismatch("attention: a padded batch reached a model that runs packed tries only")
    count = query.shape[2]
    nodes = np.arange(count)
    return Dense(Pack(nodes, nodes, np.full(count, count - 1), nodes[-1:], nodes[:1]))


class Dense:
    """All pairs of nodes under one mask: the reference."""

    def __init__(self, pack: Pack) -> None:
        """Take the pack; masks are made for each window when asked."""
        self._pack = pack
        self._masks: dict[tuple[Any, ...], torch.Tensor] = {}

    def attend(
        self, query: Heads, key: Heads, value: Heads, scale: float, window: int, cap: float
    ) -> Heads:
        """See `Layout.attend`."""
        which = (window, query.device, query.dtype)
        if which not in self._masks:
            self._masks[which] = additive(self._sees(window, query.device), query.dtype)
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        return scaled(query, key, value, self._masks[which], scale, cap)

    def _sees(self, window: int, device: torch.device) -> torch.Tensor:
        """Return (1, 1, n, n) bool: q sees k iff `k <= q <= end[k]`, and near enough by depth."""
        end = torch.as_tensor(self._pack.end, device=device)  # (n,)
        index = torch.arange(len(self._pack), device=device)  # (n,)
        sees = (index[None, :] <= index[:, None]) & (index[:, None] <= end[None, :])  # (n, n)
        if window:
            depth = torch.as_tensor(self._pack.depth, device=device)  # (n,)
            sees &= depth[:, None] - depth[None, :] < window
        return sees[None, None]


def causal(model: Any, device: torch.device) -> bool:
    """Return whether a token's state depends on nothing that comes after it.

    Tried out rather than read: a model's type does not say it (EmbeddingGemma is a `gemma3_text`).

    Args:
        model: a Hugging Face encoder or decoder without its head, as it was loaded.
        device: where its inputs go.
    """
    most = model.config.vocab_size
    first, second = ([*_ASKED[0][:-1], last] for last in _ASKED[1][1:])
    pairs = torch.tensor([[token % most for token in one] for one in (first, second)])
    with torch.inference_mode():
        states = model(input_ids=pairs.to(device)).last_hidden_state[:, :-1].float()  # (2, 3, d)
    return bool((states[0] - states[1]).abs().max() <= _SAME * states.abs().max())


def adopt(model: Any, device: torch.device) -> bool:
    """Give a causal model this attention; return whether it then computes what it did before.

    Two short sequences that share their first token are run by the model as it was, and then as one
    trie. A model that does not ask its attention here, that builds positions into its scores, or
    that carries state from token to token, shows it, and is left as it was.

    Args:
        model: a Hugging Face decoder without its head.
        device: where its inputs go.
    """
    before = model.config._attn_implementation  # noqa: SLF001  # what it was loaded with
    asked = [[token % model.config.vocab_size for token in one] for one in _ASKED]
    install()
    with torch.inference_mode():
        alone = [_last(model, ids, device) for ids in asked]
        try:
            model.set_attn_implementation(NAME)
            if _agrees(model, asked, alone, device):
                return True
        except (TypeError, ValueError, RuntimeError):
            pass  # it says in words of its own that it cannot
    model.set_attn_implementation(before)
    return False


def _agrees(
    model: Any, asked: list[list[int]], alone: list[torch.Tensor], device: torch.device
) -> bool:
    (pack,) = trie.pack(asked, sum(map(len, asked)))
    hidden = forward(model, pack, device, "dense")  # (n, d)
    apart = max(
        float((hidden[last] - alone[owner]).float().norm() / alone[owner].float().norm())
        for last, owner in zip(pack.last.tolist(), pack.owner.tolist(), strict=True)
    )
    return apart <= _AGREE[hidden.dtype]


def _last(model: Any, ids: list[int], device: torch.device) -> torch.Tensor:
    state: torch.Tensor = model(
        input_ids=torch.tensor([ids], device=device), use_cache=False
    ).last_hidden_state[0, -1]
    return state  # (d,)


_LAYOUTS: dict[str, Callable[[Pack], Layout]] = {"blocks": Blocks, "dense": Dense}


def backend(wanted: str, device: torch.device, *, plain: bool) -> Backend:
    """Return the layout that a model runs with.

    Args:
        wanted: a layout by name, or `auto` for the fastest: FlexAttention on GPUs of compute
            capability 8 and newer, around which layers must be compiled, else blocks.
        device: where it runs.
        plain: whether its layers can be compiled: neither in 4 bits nor spread over GPUs.

    Raises:
        BadConfig: FlexAttention is asked for where it cannot run.
    """
    able = plain and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if wanted == "flex" and not able:
        raise BadConfig(
            "encoder.attention = 'flex' wants one GPU of compute capability 8 and weights not in "
            "4 bits; use 'auto'"
        )
    if wanted == "auto":
        return "flex" if able else "blocks"
    return cast(Backend, wanted)


def forward(model: Any, pack: Pack, device: torch.device, kind: Backend = "blocks") -> torch.Tensor:
    """Return the last hidden states (n, d) of a pack's nodes.

    Args:
        model: a Hugging Face decoder without its head, loaded with the attention `NAME`.
        pack: the trie.
        device: where its inputs go.
        kind: the layout.
    """
    output = model(
        input_ids=torch.as_tensor(pack.ids, dtype=torch.int64, device=device)[None],  # (1, n)
        position_ids=torch.as_tensor(pack.depth, dtype=torch.int64, device=device)[None],  # (1, n)
        use_cache=False,
        trie=_LAYOUTS[kind](pack),
    )
    hidden: torch.Tensor = output.last_hidden_state[0]
    return hidden  # (n, d)
