"""Layers that multiply in 8-bit floats: twice the rate of bf16 on GPUs that have units for it.

Each row of a weight matrix, and each node's state before it, is scaled so that its largest value
is the largest of e4m3 (448), and rounded. An adapter's own products stay as they are. For encoding
alone: nothing could be learnt through the rounding. On a CPU the same rounded values are multiplied
in fp32, which is no faster and shows what the rounding does.

Source: the format is that of Micikevicius et al., "FP8 Formats for Deep Learning" (arXiv
2209.05433); a scale for each row is what torch calls rowwise scaling (`torch._scaled_mm`).
"""

from typing import Any

import torch

from parity.retrieval.engine import flex_attention
from parity.run.errors import BadConfig

_KIND, _MOST = torch.float8_e4m3fn, 448.0
_TINY = 1e-12  # of a row of zeros, so that none is divided by
_SIDES = 16  # what both sides of a matrix have to be a multiple of


class Rounded(torch.nn.Module):
    """A linear layer whose weights and inputs are rounded to 8-bit floats."""

    def __init__(self, plain: torch.nn.Linear) -> None:
        """Round a layer's weights, where they lie.

        Args:
            plain: the layer; its bias is kept as it is.
        """
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        weight, scale = rounded(plain.weight.detach())
        if weight.device.type != "cuda":
            weight = weight.float()
        self.weight: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("weight", weight)  # (out, in)
        self.register_buffer("scale", scale.t())  # (1, out)
        self.bias = plain.bias

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return (…, out) of (…, in), in the dtype of the states."""
        rows, scale = rounded(states.reshape(-1, self.in_features))  # (n, in), (n, 1)
        if rows.device.type == "cuda":
            found = torch._scaled_mm(  # noqa: SLF001  # there is no public name yet
                rows,
                self.weight.t(),
                scale_a=scale,
                scale_b=self.scale,
                out_dtype=torch.bfloat16,
                use_fast_accum=True,
            )
        else:
            found = rows.float() @ self.weight.t() * scale * self.scale
        found = found.to(states.dtype)
        if self.bias is not None:
            found = found + self.bias
        return found.view(*states.shape[:-1], self.out_features)


def rounded(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows (n, k) in e4m3, and (n, 1) float32, what each is to be multiplied by."""
    scale = rows.abs().amax(dim=1, keepdim=True).float().clamp(min=_TINY) / _MOST
    return (rows.float() / scale).to(_KIND), scale


def check(device: torch.device) -> None:
    """Check that a device multiplies 8-bit floats, or is a CPU, which does as if.

    Raises:
        BadConfig: it is a GPU below compute capability 8.9.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        raise BadConfig(
            f"quantize = 'fp8': {torch.cuda.get_device_name(device)} has no units for it "
            "(capability < 8.9); use 'none' or '4bit'"
        )


def convert(model: Any) -> None:
    """Round the linear layers within a model's layers, but an adapter's.

    Args:
        model: a Hugging Face model without its head, with its adapter, where it runs.

    Raises:
        BadConfig: it has none whose sides are multiples of 16.
    """
    count = 0
    for layer in flex_attention.layers(model):
        for name, module in list(layer.named_modules()):
            if type(module) is not torch.nn.Linear or "lora_" in name:
                continue
            if module.in_features % _SIDES or module.out_features % _SIDES:
                continue
            parent = layer.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], Rounded(module))
            count += 1
    if not count:
        raise BadConfig(
            f"quantize = 'fp8': {model.config.model_type} has no layers that it rounds; use 'none'"
        )
