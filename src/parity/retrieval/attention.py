"""Run a causal model over a packed trie: hidden states of every node from one forward."""

from typing import Any

import torch

from parity.retrieval.trie import Pack

Nodes = torch.Tensor
"""(n, d) hidden states of a pack's nodes."""


def mask(pack: Pack, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive mask (1, 1, n, n): 0 where q sees k, the dtype's minimum elsewhere.

    Built on the device from `end` alone: q sees k iff `k <= q <= end[k]`.
    """
    end = torch.as_tensor(pack.end, device=device)  # (n,)
    index = torch.arange(len(pack), device=device)  # (n,)
    sees = (index[None, :] <= index[:, None]) & (index[:, None] <= end[None, :])  # (n, n)
    additive = torch.zeros(sees.shape, dtype=dtype, device=device)
    return additive.masked_fill_(~sees, torch.finfo(dtype).min)[None, None]  # (1, 1, n, n)


def windowed(pack: Pack, full: torch.Tensor, window: int) -> torch.Tensor:
    """Return `full` with keys `window` or more positions back hidden as well (by depth)."""
    depth = torch.as_tensor(pack.depth, device=full.device)  # (n,)
    far = (depth[:, None] - depth[None, :]) >= window  # (n, n)
    return full.masked_fill(far[None, None], torch.finfo(full.dtype).min)


def forward(model: Any, pack: Pack, device: torch.device, dtype: torch.dtype) -> Nodes:
    """Return the last hidden states (n, d) of a pack's nodes.

    Args:
        model: a Hugging Face decoder without its head, attention `sdpa`.
        pack: the trie.
        device: where the model lies.
        dtype: the compute dtype, which the mask takes.
    """
    full = mask(pack, device, dtype)
    kinds = set(getattr(model.config, "layer_types", None) or ())
    window = getattr(model.config, "sliding_window", None)
    masks: torch.Tensor | dict[str, torch.Tensor] = full
    if window and "sliding_attention" in kinds:  # Qwen, Gemma: each layer picks its mask
        masks = {"full_attention": full, "sliding_attention": windowed(pack, full, window)}
    elif window and not kinds:  # Mistral: every layer slides
        masks = windowed(pack, full, window)
    output = model(
        input_ids=torch.as_tensor(pack.ids, device=device)[None],  # (1, n)
        attention_mask=masks,
        position_ids=torch.as_tensor(pack.depth, device=device)[None],  # (1, n)
        use_cache=False,
    )
    hidden: torch.Tensor = output.last_hidden_state[0]
    return hidden  # (n, d)
