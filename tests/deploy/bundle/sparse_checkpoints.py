"""Checkpoints as large as real ones that take no disk space: real headers, sparse weights."""

import json
import math
from pathlib import Path

MISTRAL_7B = {"width": 4096, "inner": 14336, "layers": 32, "heads": 32, "groups": 8, "head": 128}
QWEN_14B = {"width": 5120, "inner": 13824, "layers": 48, "heads": 40, "groups": 8, "head": 128}
VOCABULARY = 32003

_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1}


def write(folder: Path, sizes: dict[str, int], dtype: str = "BF16", **config: object) -> Path:
    """Write config.json and model.safetensors of a decoder, and return the folder."""
    folder.mkdir(parents=True)
    shape = {
        "hidden_size": sizes["width"],
        "intermediate_size": sizes["inner"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "head_dim": sizes["head"],
        **config,
    }
    (folder / "config.json").write_text(json.dumps(shape))
    tensors: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (VOCABULARY, sizes["width"]),
        "norm.weight": (sizes["width"],),
    }
    for layer in range(sizes["layers"]):
        tensors |= {f"layers.{layer}.{name}.weight": item for name, item in _layer(sizes).items()}
    tensors["lm_head.weight"] = (VOCABULARY, sizes["width"])
    save(folder / "model.safetensors", {name: (dtype, item) for name, item in tensors.items()})
    return folder


def save(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """Write a safetensors file whose weights are a sparse hole."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, (dtype, shape) in tensors.items():
        stop = start + math.prod(shape) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with path.open("r+b") as handle:
        handle.truncate(8 + len(text) + start)


def _layer(sizes: dict[str, int]) -> dict[str, tuple[int, ...]]:
    width, inner = sizes["width"], sizes["inner"]
    query_width, key_width = sizes["heads"] * sizes["head"], sizes["groups"] * sizes["head"]
    return {
        "self_attn.q_proj": (query_width, width),
        "self_attn.k_proj": (key_width, width),
        "self_attn.v_proj": (key_width, width),
        "self_attn.o_proj": (width, query_width),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
