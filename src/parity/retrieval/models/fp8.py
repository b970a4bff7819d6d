"""Linear layers in 8-bit floats (e4m3): twice the rate of bf16 on GPUs with FP8 units.

Each row of a weight matrix, and each token's input, is scaled so that its largest value is 448, the
maximum of e4m3, and rounded. LoRA layers are not rounded. This is for encoding only: rounding has
no gradient. On a CPU the rounded values are multiplied in fp32, which is not faster but shows the
rounding error.

Source: Micikevicius et al. 2022, "FP8 Formats for Deep Learning", arXiv 2209.05433; one scale for
each row is torch's rowwise scaling (`torch._scaled_mm`).
"""

from typing import Any

import torch

from parity.retrieval.engine import flex_attention
from parity.run.errors import BadConfig

_DTYPE, _MAX_VALUE = torch.float8_e4m3fn, 448.0
_TINY = 1e-12  # smallest maximum of a row, so that a row of zeros does not divide by 0
_MULTIPLE = 16  # both sides of a matrix must be a multiple of it


class RoundedLinear(torch.nn.Module):
    """A linear layer with weights and inputs rounded to e4m3."""

    def __init__(self, plain: torch.nn.Linear) -> None:
        """Round the weights of a layer, on its device.

        Args:
            plain: the layer; its bias is not rounded.
        """
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        weight, scale = round_rows(plain.weight.detach())
        if weight.device.type != "cuda":
            weight = weight.float()
        self.weight: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("weight", weight)  # (out, in)
        self.register_buffer("scale", scale.t())  # (1, out)
        self.bias = plain.bias

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the outputs, (…, out), of states, (…, in), in the dtype of the states."""
        rows, scale = round_rows(states.reshape(-1, self.in_features))  # (n, in), (n, 1)
        if rows.device.type == "cuda":
            result = torch._scaled_mm(  # noqa: SLF001  # torch has no public API yet
                rows,
                self.weight.t(),
                scale_a=scale,
                scale_b=self.scale,
                out_dtype=torch.bfloat16,
                use_fast_accum=True,
            )
        else:
            result = rows.float() @ self.weight.t() * scale * self.scale
        result = result.to(states.dtype)
        if self.bias is not None:
            result = result + self.bias
        return result.view(*states.shape[:-1], self.out_features)


def round_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows, (n, k), rounded to e4m3, and their scales, (n, 1) float32."""
    scale = rows.abs().amax(dim=1, keepdim=True).float().clamp(min=_TINY) / _MAX_VALUE
    return (rows.float() / scale).to(_DTYPE), scale


def check_device(device: torch.device) -> None:
    """Check that a device supports 8-bit floats; a CPU emulates them.

    Raises:
        BadConfig: the device is a GPU below compute capability 8.9.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        raise BadConfig(
            f"quantize = 'fp8': {torch.cuda.get_device_name(device)} has no FP8 units "
            "(capability < 8.9). Use 'none' or '4bit'"
        )


def round_layers(model: Any) -> None:
    """Replace the linear layers of a model's layers by rounded ones, in place; LoRA layers stay.

    Args:
        model: Hugging Face model without head, with its adapter, on its device.

    Raises:
        BadConfig: the model has no linear layer whose sides are multiples of 16.
    """
    count = 0
    for layer in flex_attention.decoder_layers(model):
        for name, module in list(layer.named_modules()):
            if type(module) is not torch.nn.Linear or "lora_" in name:
                continue
            if module.in_features % _MULTIPLE or module.out_features % _MULTIPLE:
                continue
            parent = layer.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], RoundedLinear(module))
            count += 1
    if not count:
        raise BadConfig(
            f"quantize = 'fp8': {model.config.model_type} has no linear layer with sides that are "
            f"multiples of {_MULTIPLE}. Use 'none'"
        )
