"""One encoder: base weights, adapter, tokens in, unit vectors out.

Causal models run as packed prefix tries (last-token pooling); other encoders as batches of equal
length, so nothing is ever padded.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, BitsAndBytesConfig
from transformers.utils import logging

from parity.retrieval import adapter as adapters
from parity.retrieval import attention, hardware, trie
from parity.retrieval.bases import Base
from parity.retrieval.reader import Reader, Tokens
from parity.retrieval.search import Embeddings
from parity.retrieval.workers import Workers
from parity.run import digest, environment
from parity.run.config import EncoderConfig
from parity.run.errors import BadConfig, Mismatch
from parity.run.progress import progress


@dataclass(frozen=True, slots=True)
class Embedded:
    """What one `embed` took, over all processes.

    Attributes:
        tokens: that were computed, shared prefixes once.
        packs: in how many packs.
        seconds: wall time.
    """

    tokens: int = 0
    packs: int = 0
    seconds: float = 0.0


class Encoder(Reader):
    """A loaded model, which reads texts as its `Reader` does.

    Attributes:
        model: the Hugging Face module, with the adapter where there is one.
        device: where it lies.
        dtype: compute dtype.
        adapter: sha256 of the adapter's weights, empty for the bare base.
        workers: the processes that share its packs.
        embedded: what the last `embed` took.
    """

    def __init__(
        self,
        base: Base,
        config: EncoderConfig,
        *,
        adapter: Path | None = None,
        workers: Workers | None = None,
    ) -> None:
        """Load base and adapter.

        Args:
            base: the base weights.
            config: layers, pooling, precision, device.
            adapter: the adapter's folder; None runs the bare base.
            workers: the processes that share its packs; None means alone.

        Raises:
            BadConfig: the pooling does not fit the model, or the device cannot do the precision.
            Mismatch: weights would be newly initialised, or the adapter does not fit.
        """
        self.workers = workers or Workers()
        self.embedded = Embedded()
        self.device = _device(config)
        self.dtype = _dtype(config, self.device)
        self.model = _load(base, config, self.device, self.dtype)
        # The attention layers say it; a model's type does not (EmbeddingGemma is a `gemma3_text`).
        causal = any(getattr(one, "is_causal", False) for one in self.model.modules())
        if causal != (config.pooling == "last"):
            raise BadConfig(
                f"encoder.pooling = {config.pooling!r}: {self.model.config.model_type} is "
                f"{'causal and needs last' if causal else 'no causal model; mean or cls'}"
            )
        super().__init__(base, config, self.model.config, causal=causal)
        self.adapter = ""
        if adapter is not None:
            self.model, record = adapters.load(self.model, adapter, base, layers=config.layers)
            if not _spread(self.model, base):
                self.model.to(self.device)
            self.adapter = record.weights
        self.model.eval()

    def digest(self) -> str:
        """Return the digest of everything that decides an embedding but texts and hardware."""
        apart = {"base", "revision", "device", "spread"}
        how = self.config.model_dump(mode="json", exclude=apart)
        return digest.of_value([self.base.digest(), self.adapter, how, str(self.dtype)])

    def embed(self, sequences: Sequence[Tokens], label: str = "encode") -> Embeddings:
        """Return (n, d) float32 unit vectors, without gradients, in the order asked.

        The result depends on the sequences and the token budget only.
        """
        started, packs = time.monotonic(), self.packs(sequences)
        tokens = sum(map(len, packs))
        with torch.inference_mode(), progress(label, tokens, "tok") as bar:
            vectors = self._vectors(packs, bar.update).cpu().numpy()
        self.embedded = Embedded(tokens, len(packs), round(time.monotonic() - started, 3))
        return vectors

    def speed(self) -> dict[str, Any]:
        """Return what the last `embed` took, and on what: a fact for `plan`."""
        return {
            **asdict(self.embedded),
            "processes": self.workers.world,
            "precision": f"{str(self.dtype).removeprefix('torch.')}/{self.config.quantise}",
            "gpu": environment.gpu() if self.device.type == "cuda" else "",
        }

    def encode(self, sequences: Sequence[Tokens]) -> torch.Tensor:
        """Return (n, d) float32 unit vectors in the order asked; own packs carry gradients."""
        return self._vectors(self.packs(sequences), lambda _: None)

    def _vectors(self, packs: list[trie.Pack], done: Callable[[int], object]) -> torch.Tensor:
        width = self.model.config.hidden_size
        parts = [] if packs else [torch.zeros(0, width, device=self.device)]
        for index, pack in enumerate(packs):
            if self.workers.owns(index):
                parts.append(torch.nn.functional.normalize(self._states(pack).float(), dim=-1))
            else:
                parts.append(torch.zeros(len(pack.owner), width, device=self.device))
            done(len(pack))
        owner = np.concatenate([np.zeros(0, np.int64), *(pack.owner for pack in packs)])
        back = torch.as_tensor(np.argsort(owner, kind="stable"), device=self.device)
        return torch.cat(self.workers.share(parts))[back]  # (n, d)

    def _states(self, pack: trie.Pack) -> torch.Tensor:
        """Return the pooled states (m, d) of a pack's owned sequences."""
        if self.causal:
            nodes = attention.forward(self.model, pack, self.device, self.dtype)  # (n, d)
            nodes = nodes.to(self.device)  # the last layer may lie on another GPU
            return nodes[torch.as_tensor(pack.last, device=self.device)]  # (m, d)
        width = int(pack.depth[-1]) + 1
        ids = torch.as_tensor(pack.ids, device=self.device).view(-1, width)  # (u, width)
        hidden = self.model(input_ids=ids).last_hidden_state  # (u, width, d)
        pooled: torch.Tensor = (
            hidden[:, 0] if self.config.pooling == "cls" else hidden.mean(dim=1)
        )  # (u, d)
        return pooled[torch.as_tensor(pack.last // width, device=self.device)]  # (m, d)


def _device(config: EncoderConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise BadConfig("encoder.device = 'cuda': this machine shows no CUDA device to torch")
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def _dtype(config: EncoderConfig, device: torch.device) -> torch.dtype:
    """Return the compute dtype by what the device really has.

    `torch.cuda.is_bf16_supported()` counts emulation as support; compute capability does not.
    """
    native = device.type == "cuda" and not hardware.lacks_bf16(device)
    if config.precision == "bf16" and device.type == "cuda" and not native:
        raise BadConfig("encoder.precision = 'bf16': this GPU has no bf16 units (capability < 8)")
    if config.precision == "auto":
        half = torch.bfloat16 if native else torch.float16
        return half if device.type == "cuda" else torch.float32
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return names[config.precision]


def _load(base: Base, config: EncoderConfig, device: torch.device, dtype: torch.dtype) -> Any:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    shape = AutoConfig.from_pretrained(str(base.folder))
    if config.layers:
        if config.layers > shape.num_hidden_layers:
            raise BadConfig(
                f"encoder.layers = {config.layers}: {base.name} has {shape.num_hidden_layers}"
            )
        shape.num_hidden_layers = config.layers
        if getattr(shape, "layer_types", None):
            shape.layer_types = shape.layer_types[: config.layers]
    quantised = BitsAndBytesConfig(
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
        attn_implementation="eager" if capped else "sdpa",
        quantization_config=None if ready or config.quantise != "4bit" else quantised,
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
    return model.to(device) if not _spread(model, base) else model


def _spread(model: Any, base: Base) -> bool:
    """Return whether its layers lie on several devices, from which none may be moved.

    Raises:
        BadConfig: the GPUs together are too small, so that layers were left outside of them.
    """
    places = set(getattr(model, "hf_device_map", {}).values())
    if len(places) > 1 and places & {"cpu", "disk"}:
        raise BadConfig(
            f"base {base.name} does not fit all GPUs together: encoder.quantise = '4bit' or fewer "
            "encoder.layers"
        )
    return len(places) > 1


def _keep_unpacked(model: Any) -> None:
    """Keep 4-bit layers on the CPU from repacking themselves in the first forward they see.

    Where there is AVX512-BF16, bitsandbytes does so without gradients; the packed kernel sums in
    bf16 whatever the precision and has no backward, so training after it learns from noise.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
