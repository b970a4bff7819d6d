"""Attention of a causal model over a packed trie: one forward gives all hidden states.

One attention function, registered with transformers by name, calls a `Layout`. Three layouts give
the same result: `dense` masks all pairs (the reference), `blocks` gathers the visible ancestors of
each block (CPUs, and GPUs without FlexAttention), `flex` passes a block mask to FlexAttention.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from transformers import AttentionInterface

from parity.retrieval.engine import trie
from parity.retrieval.engine.block_attention import (
    BlockLayout,
    Heads,
    additive_mask,
    masked_attention,
)
from parity.retrieval.engine.trie import Pack
from parity.run.errors import BadConfig, Mismatch, NotFinite

NAME = "prefix_trie"
"""Name of the attention implementation in transformers (`attn_implementation`)."""

Backend = Literal["flex", "blocks", "dense"]

_PROBE = [1, 2, 3, 4], [1, 5, 6]  # token ids that probe a model
_CAUSAL_TOLERANCE = 1e-4  # relative to the largest value: rounding in any precision
_MAX_DISTANCE = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}  # relative


class Layout(Protocol):
    """The attention pattern of one pack, on the device of the queries."""

    def attend(
        self, query: Heads, key: Heads, value: Heads, scale: float, window: int, cap: float
    ) -> Heads:
        """Return the output of the attention, (1, h, n, d).

        Args:
            query: (1, h, n, d).
            key: (1, g, n, d); h is a multiple of g.
            value: (1, g, n, d).
            scale: factor of the scores.
            window: sliding window in positions, the token itself included; 0 means no window.
            cap: bound of the scores by tanh, as in Gemma 2; 0 means no bound.
        """


def register() -> None:
    """Register the attention as `NAME` with transformers; masks come from the layout."""
    AttentionInterface.register(NAME, _attention)


def _attention(
    module: Any,
    query: Heads,
    key: Heads,
    value: Heads,
    attention_mask: None,  # noqa: ARG001  # transformers passes None
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention for transformers; without a layout, the input is one causal sequence."""
    layout: Layout = options.get("trie") or _single_sequence(query)
    scale = options.get("scaling") or module.head_dim**-0.5
    window, cap = options.get("sliding_window") or 0, options.get("softcap") or 0.0
    return layout.attend(query, key, value, scale, window, cap).transpose(1, 2), None


def _single_sequence(query: Heads) -> "DenseLayout":
    if query.shape[0] > 1:
        raise Mismatch(
            "a padded batch in a model with packed attention. Pass one sequence or a packed trie"
        )
    count = query.shape[2]
    positions = np.arange(count)
    return DenseLayout(
        Pack(positions, positions, np.full(count, count - 1), positions[-1:], positions[:1])
    )


class DenseLayout:
    """Attention over all pairs with one mask: the reference."""

    def __init__(self, pack: Pack) -> None:
        """Store the pack; the mask of each window is built at first use."""
        self._pack = pack
        self._masks: dict[tuple[Any, ...], torch.Tensor] = {}

    def attend(
        self, query: Heads, key: Heads, value: Heads, scale: float, window: int, cap: float
    ) -> Heads:
        """See `Layout.attend`."""
        cache_key = (window, query.device, query.dtype)
        if cache_key not in self._masks:
            self._masks[cache_key] = additive_mask(self._sees(window, query.device), query.dtype)
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        return masked_attention(query, key, value, self._masks[cache_key], scale, cap)

    def _sees(self, window: int, device: torch.device) -> torch.Tensor:
        """Return (1, 1, n, n) bool: q sees k iff `k <= q <= end[k]` and k is in the window."""
        end = torch.as_tensor(self._pack.end, device=device)  # (n,)
        index = torch.arange(len(self._pack), device=device)  # (n,)
        sees = (index[None, :] <= index[:, None]) & (index[:, None] <= end[None, :])  # (n, n)
        if window:
            depth = torch.as_tensor(self._pack.depth, device=device)  # (n,)
            sees &= depth[:, None] - depth[None, :] < window
        return sees[None, None]


def is_causal(model: Any, device: torch.device) -> bool:
    """Return whether no token's hidden state depends on later tokens.

    This is measured, since the model type is ambiguous: EmbeddingGemma is a `gemma3_text`.

    Args:
        model: Hugging Face encoder or decoder without head, as loaded.
        device: device of the model's inputs.

    Raises:
        NotFinite: the model computes NaN or infinity.
    """
    vocabulary_size = model.config.vocab_size
    first, second = ([*_PROBE[0][:-1], last] for last in _PROBE[1][1:])
    pairs = torch.tensor([[token % vocabulary_size for token in row] for row in (first, second)])
    with torch.inference_mode():
        states = model(input_ids=pairs.to(device)).last_hidden_state[:, :-1].float()  # (2, 3, d)
    if not bool(states.isfinite().all()):
        precision = str(model.dtype).removeprefix("torch.")
        raise NotFinite(
            "the base model computes NaN or infinity: its weights are damaged, or it overflows in "
            f"{precision}. Set encoder.precision to 'fp32' or 'bf16', or use other weights"
        )
    return bool((states[0] - states[1]).abs().max() <= _CAUSAL_TOLERANCE * states.abs().max())


def replace_attention(model: Any, device: torch.device) -> bool:
    """Switch a causal model to this attention; return whether its results stay the same.

    Two short sequences with a common first token run through the original model, and then as one
    trie. The results differ if the model ignores `attn_implementation`, adds position biases to its
    scores, or carries state from token to token. Such a model is left unchanged.

    Args:
        model: Hugging Face decoder without head.
        device: device of the model's inputs.
    """
    original = model.config._attn_implementation  # noqa: SLF001  # as loaded
    sequences = [[token % model.config.vocab_size for token in row] for row in _PROBE]
    register()
    with torch.inference_mode():
        expected = [_last_state(model, ids, device) for ids in sequences]
        try:
            model.set_attn_implementation(NAME)
            if _is_equal(model, sequences, expected, device):
                return True
        except (TypeError, ValueError, RuntimeError):
            pass  # the model does not support it
    model.set_attn_implementation(original)
    return False


def _is_equal(
    model: Any, sequences: list[list[int]], expected: list[torch.Tensor], device: torch.device
) -> bool:
    (pack,) = trie.pack(sequences, sum(map(len, sequences)))
    hidden = forward(model, pack, device, "dense")  # (n, d)
    distance = max(
        float((hidden[last] - expected[owner]).float().norm() / expected[owner].float().norm())
        for last, owner in zip(pack.last.tolist(), pack.owner.tolist(), strict=True)
    )
    return distance <= _MAX_DISTANCE[hidden.dtype]


def _last_state(model: Any, ids: list[int], device: torch.device) -> torch.Tensor:
    state: torch.Tensor = model(
        input_ids=torch.tensor([ids], device=device), use_cache=False
    ).last_hidden_state[0, -1]
    return state  # (d,)


_LAYOUTS: dict[str, Callable[[Pack], Layout]] = {"blocks": BlockLayout, "dense": DenseLayout}


def choose_backend(requested: str, device: torch.device, *, can_compile: bool) -> Backend:
    """Return the attention layout of a model.

    Args:
        requested: name of a layout, or `auto` for the fastest: FlexAttention on GPUs of compute
            capability 8 and higher if the layers can be compiled, else blocks.
        device: device of the model.
        can_compile: whether the layers can be compiled: not in 4 bits, not split over GPUs.

    Raises:
        BadConfig: FlexAttention is requested where it cannot run.
    """
    can_flex = (
        can_compile and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    )
    if requested == "flex" and not can_flex:
        raise BadConfig(
            "encoder.attention = 'flex' needs one GPU of compute capability 8 or higher and "
            "weights not in 4 bits. Use 'auto'"
        )
    if requested == "auto":
        return "flex" if can_flex else "blocks"
    return cast(Backend, requested)


def forward(model: Any, pack: Pack, device: torch.device, kind: Backend = "blocks") -> torch.Tensor:
    """Return the last hidden states, (n, d), of the packed tokens.

    Args:
        model: Hugging Face decoder without head, with the attention `NAME`.
        pack: trie of n packed tokens.
        device: device of the model's inputs.
        kind: name of the layout.
    """
    output = model(
        input_ids=torch.as_tensor(pack.ids, dtype=torch.int64, device=device)[None],  # (1, n)
        position_ids=torch.as_tensor(pack.depth, dtype=torch.int64, device=device)[None],  # (1, n)
        use_cache=False,
        trie=_LAYOUTS[kind](pack),
    )
    hidden: torch.Tensor = output.last_hidden_state[0]
    return hidden  # (n, d)
