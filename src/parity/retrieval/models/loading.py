"""Loading of base models: number of layers, precision, quantization and device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModel, BitsAndBytesConfig
from transformers.utils import logging

from parity.retrieval.engine import device as hardware
from parity.retrieval.models import fp8
from parity.retrieval.models.base_model import BaseModel
from parity.run.config.encoder import EncoderConfig
from parity.run.errors import BadConfig, Mismatch, ParityError


def set_numerics() -> None:
    """Compute float32 products in float32, as evidence and cached embeddings assume.

    A notebook or another library may have allowed TF32 or bfloat16 for the whole process.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def choose_device(config: EncoderConfig) -> torch.device:
    """Return the device of a run.

    Raises:
        BadConfig: `encoder.device` is `cuda` but torch sees no GPU.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise BadConfig("encoder.device = 'cuda': torch finds no CUDA device")
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def choose_dtype(config: EncoderConfig, device: torch.device) -> torch.dtype:
    """Return the compute dtype: for `auto`, bf16 or fp16 on a GPU, fp32 on a CPU.

    `torch.cuda.is_bf16_supported()` counts emulation as support, so this reads the compute
    capability.

    Raises:
        BadConfig: `encoder.precision` is `bf16` on a GPU without bf16 units.
    """
    native = device.type == "cuda" and not hardware.emulates_bf16(device)
    if config.precision == "bf16" and device.type == "cuda" and not native:
        raise BadConfig("encoder.precision = 'bf16': this GPU has no bf16 units (capability < 8)")
    if config.precision == "auto":
        half = torch.bfloat16 if native else torch.float16
        return half if device.type == "cuda" else torch.float32
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return names[config.precision]


def load(base: BaseModel, config: EncoderConfig, device: torch.device, dtype: torch.dtype) -> Any:
    """Return the base model with frozen weights, on its device.

    Raises:
        BadConfig: the model has too few layers or does not fit the GPUs, or the GPUs do not support
            the quantization.
        Mismatch: a weight is missing from the files and would be newly initialized.
    """
    if config.quantize == "fp8":
        fp8.check_device(device)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    shape = _load_config(base)
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
    is_quantized = (
        getattr(shape, "quantization_config", None) is not None
    )  # the files hold 4-bit weights
    # Gemma 2 caps attention logits, which SDPA does not support.
    is_capped = bool(getattr(shape, "attn_logit_softcapping", None))
    with _translated(base, "its weights"):
        model, info = AutoModel.from_pretrained(
            str(base.folder),
            config=shape,
            dtype=dtype,
            attn_implementation="eager" if is_capped else None,
            quantization_config=None if is_quantized or config.quantize != "4bit" else quantized,
            device_map=hardware.device_map(config, device),
            ignore_mismatched_sizes=True,  # refused below with a message
            output_loading_info=True,
        )
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing or info["mismatched_keys"]:
        key = missing[0] if missing else sorted(map(str, info["mismatched_keys"]))[0]
        raise Mismatch(f"base model {base.name}: {key} is not in its files and would be random")
    _keep_unpacked(model)
    model.requires_grad_(False)
    return model if hardware.is_split(model, base.name) else model.to(device)


def _load_config(base: BaseModel) -> Any:
    with _translated(base, "its config.json"):
        return AutoConfig.from_pretrained(str(base.folder))


@contextmanager
def _translated(base: BaseModel, what: str) -> Iterator[None]:
    """Translate an error of the library that loads a base model to one line.

    Out of memory keeps its class, since the caller may retry.
    """
    try:
        yield
    except (torch.cuda.OutOfMemoryError, MemoryError, ParityError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise BadConfig(
            f"base model {base.name}: transformers {transformers.__version__} cannot load {what} "
            f"({type(error).__name__}: {reason[:200]})"
        ) from error


def _keep_unpacked(model: Any) -> None:
    """Prevent bitsandbytes from repacking 4-bit layers on the CPU in their first forward.

    With AVX512-BF16, bitsandbytes repacks in a forward without gradients. The packed kernel sums in
    bf16 in every precision and has no backward, so later training would learn from noise.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
