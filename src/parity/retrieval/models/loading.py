"""Load a base's weights as a run wants them: depth, precision, 4 bits, device."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModel, BitsAndBytesConfig
from transformers.utils import logging

from parity.retrieval.engine import device as hardware
from parity.retrieval.models import fp8
from parity.retrieval.models.base_model import BaseModel
from parity.run.config.run_file import EncoderConfig
from parity.run.errors import BadConfig, Mismatch


def device_of(config: EncoderConfig) -> torch.device:
    """Return where a run computes.

    Raises:
        BadConfig: a GPU is asked for and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise BadConfig("encoder.device = 'cuda': this machine shows no CUDA device to torch")
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def dtype_of(config: EncoderConfig, device: torch.device) -> torch.dtype:
    """Return the compute dtype by what the device really has.

    `torch.cuda.is_bf16_supported()` counts emulation as support; compute capability does not.

    Raises:
        BadConfig: bf16 is asked of a GPU without units for it.
    """
    native = device.type == "cuda" and not hardware.lacks_bf16(device)
    if config.precision == "bf16" and device.type == "cuda" and not native:
        raise BadConfig("encoder.precision = 'bf16': this GPU has no bf16 units (capability < 8)")
    if config.precision == "auto":
        half = torch.bfloat16 if native else torch.float16
        return half if device.type == "cuda" else torch.float32
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return names[config.precision]


def load(base: BaseModel, config: EncoderConfig, device: torch.device, dtype: torch.dtype) -> Any:
    """Return the base's model with frozen weights, on its device.

    Raises:
        BadConfig: it has fewer layers than asked for, does not fit the GPUs, or they cannot do
            what is asked.
        Mismatch: weights would be newly initialized.
    """
    if config.quantize == "fp8":
        fp8.check(device)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    shape = AutoConfig.from_pretrained(str(base.folder))
    if config.num_layers:
        if config.num_layers > shape.num_hidden_layers:
            raise BadConfig(
                f"encoder.num_layers = {config.num_layers}: "
                f"{base.name} has {shape.num_hidden_layers}"
            )
        shape.num_hidden_layers = config.num_layers
        if getattr(shape, "layer_types", None):
            shape.layer_types = shape.layer_types[: config.num_layers]
    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    ready = getattr(shape, "quantization_config", None) is not None  # its files are 4-bit already
    # Gemma 2 caps attention logits, which SDPA cannot.
    capped = bool(getattr(shape, "attn_logit_softcapping", None))
    model, info = AutoModel.from_pretrained(
        str(base.folder),
        config=shape,
        dtype=dtype,
        attn_implementation="eager" if capped else None,
        quantization_config=None if ready or config.quantize != "4bit" else quantized,
        device_map=hardware.device_map(config, device),
        ignore_mismatched_sizes=True,  # refused below, in words
        output_loading_info=True,
    )
    fresh = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if fresh or info["mismatched_keys"]:
        key = fresh[0] if fresh else sorted(map(str, info["mismatched_keys"]))[0]
        raise Mismatch(f"base {base.name}: {key} is not in its files and would be random")
    _keep_unpacked(model)
    model.requires_grad_(False)
    return model if hardware.spread(model, base.name) else model.to(device)


def _keep_unpacked(model: Any) -> None:
    """Keep 4-bit layers on the CPU from repacking themselves in the first forward they see.

    Where there is AVX512-BF16, bitsandbytes does so without gradients; the packed kernel sums in
    bf16 whatever the precision and has no backward, so training after it learns from noise.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
