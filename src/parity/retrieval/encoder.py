"""Encoder: base model and adapter, from token sequences to unit vectors.

Causal models run on packed prefix tries (last-token pooling), other models on batches of equal
length, so there is no padding.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parity.retrieval import embedding_cache as caches
from parity.retrieval.embedding_cache import EmbeddingCache
from parity.retrieval.engine import attention, device, trie
from parity.retrieval.engine import oom_retry as budget
from parity.retrieval.engine.distributed import ProcessGroup
from parity.retrieval.engine.forward import Forward
from parity.retrieval.engine.last_layer import LastLayer
from parity.retrieval.models import adapter as adapters
from parity.retrieval.models import conventions, fp8, loading
from parity.retrieval.models.base_model import BaseModel
from parity.retrieval.search import Embeddings
from parity.retrieval.tokenizer import Tokenizer, Tokens
from parity.run import digest, environment
from parity.run.config.encoder import EncoderConfig
from parity.run.errors import BadConfig, NotFinite
from parity.run.progress import log, progress

_POOLINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "last": lambda hidden: hidden[:, -1],
    "cls": lambda hidden: hidden[:, 0],
    "mean": lambda hidden: hidden.mean(dim=1),
}
"""Pooling → function from hidden states, (u, t, d), of equally long sequences to (u, d)."""


@dataclass(frozen=True, slots=True)
class EmbeddingStats:
    """Cost of one `embed`, over all processes.

    Attributes:
        tokens: number of tokens computed, with prefix sharing; 0 if the embeddings were cached.
        packs: number of packs.
        seconds: wall time.
        sequences: number of sequences.
        tokens_without_sharing: tokens in all sequences.
        cached: tokens without sharing whose embeddings came from the cache.
        budget: largest number of tokens in a pack, after halving if memory ran out.
        peak: bytes on the GPU in addition to the weights; 0 if unknown.
    """

    tokens: int = 0
    packs: int = 0
    seconds: float = 0.0
    sequences: int = 0
    tokens_without_sharing: int = 0
    cached: int = 0
    budget: int = 0
    peak: int = 0


class Encoder(Tokenizer):
    """A loaded model with its tokenizer.

    Attributes:
        model: Hugging Face module, with the adapter if there is one.
        device: device of the model.
        dtype: compute dtype.
        adapter: digest of the adapter's weights and settings; empty for the base model.
        workers: processes that share the packs.
        embedded: cost of the last `embed`.
        forward: forward pass of packs, for models that share prefixes.
        stats_by_label: label → cost of the last `embed` with that label.
    """

    def __init__(
        self,
        base: BaseModel,
        config: EncoderConfig,
        *,
        adapter: Path | None = None,
        workers: ProcessGroup | None = None,
        cache: EmbeddingCache | None = None,
    ) -> None:
        """Load the base model and the adapter.

        Args:
            base: base model.
            config: layers, pooling, precision, device.
            adapter: folder of the adapter; None means the base model without adapter.
            workers: processes that share the packs; None means a single process.
            cache: cache of embeddings on disk, used while the weights are unchanged; None means no
                cache.

        Raises:
            BadConfig: the pooling does not fit the model, or the device does not support the
                precision.
            Mismatch: a weight is missing, or the adapter does not fit the base model.
        """
        self.workers = workers or ProcessGroup()
        self.embedded, self.stats_by_label = EmbeddingStats(), dict[str, EmbeddingStats]()
        loading.set_numerics()
        self.device = loading.choose_device(config)
        self.dtype = loading.choose_dtype(config, self.device)
        self.model = loading.load(base, config, self.device, self.dtype)
        is_causal = attention.is_causal(self.model, self.device)
        conventions.check_steps(base.folder, base.name, is_causal=is_causal)
        if is_causal != (config.pooling == "last"):
            raise BadConfig(
                f"encoder.pooling = {config.pooling!r}: {self.model.config.model_type} is "
                f"{'causal, use last' if is_causal else 'not causal, use mean or cls'}"
            )
        super().__init__(base, config, self.model.config, is_causal=is_causal)
        on_one_device = not device.is_split(self.model, base.name)
        self.shares_prefixes = is_causal and attention.replace_attention(self.model, self.device)
        if is_causal and not self.shares_prefixes:
            log(
                f"{self.model.config.model_type}: its attention cannot be replaced, so prefixes "
                "are not shared; texts of equal length run together without padding"
            )
        can_compile = on_one_device and not getattr(self.model, "is_quantized", False)
        kind = attention.choose_backend(config.attention, self.device, can_compile=can_compile)
        last_layer = LastLayer(self.model) if self.shares_prefixes else None
        self.forward = Forward(self.device, self.dtype, kind, last_layer)
        self.adapter = ""
        if adapter is not None:
            self.model, record = adapters.load(self.model, adapter, base, layers=config.num_layers)
            if on_one_device:
                self.model.to(self.device)
            self.adapter = record.digest()
        self.model.eval()
        if config.quantize == "fp8":
            fp8.round_layers(self.model)
        self._cache, self._loaded_model = cache, self.model

    def digest(self) -> str:
        """Return the digest of everything that affects embeddings, except texts and hardware."""
        irrelevant = {"base", "revision", "device", "parallelism", "attention"}
        settings = self.config.model_dump(mode="json", exclude=irrelevant)
        return digest.of_value([self.base.digest(), self.adapter, settings, str(self.dtype)])

    def embed(
        self, sequences: Sequence[Tokens], label: str = "encode", names: Sequence[str] = ()
    ) -> Embeddings:
        """Return unit vectors, (n, d) float32, without gradients, in the order of `sequences`.

        The result depends only on the sequences and the token budget. If memory runs out, the
        budget is halved for this and all later lists, which changes `config` and `digest`.

        Args:
            sequences: token ids of n sequences.
            label: label of the progress bar and of `stats_by_label`.
            names: names of the n sequences, for errors; empty means their numbers.

        Raises:
            BadConfig: memory runs out with the smallest budget too.
            NotFinite: an embedding holds NaN or infinity; nothing is cached.
        """
        return budget.retry_with_half(
            self.config.token_budget,
            lambda token_budget: self._embed(sequences, token_budget, label, names),
            floor=max(map(len, sequences), default=0),
            release=self.release,
        )

    def release(self) -> None:
        """Free the memory that is reserved on the device for packs of earlier sizes."""
        self.forward.release()

    def _embed(
        self, sequences: Sequence[Tokens], token_budget: int, label: str, names: Sequence[str]
    ) -> Embeddings:
        started = time.monotonic()
        self.config = self.config.model_copy(update={"token_budget": token_budget})
        cache, name = self._cache_entry(sequences)
        shape, token_count = (
            (len(sequences), self.model.config.hidden_size),
            sum(map(len, sequences)),
        )
        vectors = cache.read_in_all(name, shape, self.workers, self.device) if cache else None
        stats = EmbeddingStats(
            sequences=len(sequences),
            tokens_without_sharing=token_count,
            cached=token_count,
            budget=token_budget,
        )
        if vectors is None:
            packs, before = self.packs(sequences), device.allocated_bytes(self.device)
            tokens = sum(map(len, packs))
            with torch.inference_mode(), progress(label, tokens, "tok") as bar:
                vectors = self._vectors(packs, bar.update).cpu().numpy()
            self._need_finite(vectors, label, names)
            peak = device.peak_increase(self.device, before)
            stats = replace(stats, tokens=tokens, packs=len(packs), cached=0, peak=peak)
            if cache and self.workers.is_main:
                cache.write(name, vectors)
        self.embedded = replace(stats, seconds=round(time.monotonic() - started, 3))
        self.stats_by_label[label] = self.embedded
        return vectors

    def _need_finite(self, vectors: Embeddings, label: str, names: Sequence[str]) -> None:
        """Check that every vector, (n, d), holds finite numbers only.

        Raises:
            NotFinite: one does not; the message names the first row.
        """
        rows = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if not len(rows):
            return
        name = names[rows[0]] if names else f"text {rows[0] + 1}"
        if self.dtype == torch.float32:
            advice = "The weights of the base model or the adapter hold NaN or are too large"
        else:
            precision = str(self.dtype).removeprefix("torch.")
            advice = (
                f"The model overflows in {precision}. Set encoder.precision to 'fp32' or 'bf16'"
            )
        raise NotFinite(
            f"{label}: the embedding of {name} is not finite, {len(rows)} of {len(vectors)} in "
            f"all. {advice}"
        )

    def _cache_entry(self, sequences: Sequence[Tokens]) -> tuple[EmbeddingCache | None, str]:
        """Return the cache and the key of a list; None if the list must not be cached.

        The digests do not describe weights that training changes or has changed: then the module is
        another one, or a weight requires gradients.
        """
        changing = any(weight.requires_grad for weight in self.model.parameters())
        if self._cache is None or changing or self.model is not self._loaded_model or not sequences:
            return None, ""
        hardware = [
            *device.compute_identity(self.device),
            self.forward.kind,
            self.config.parallelism,
        ]
        return self._cache, caches.cache_key([self.digest(), *hardware], sequences)

    def speed(self) -> dict[str, Any]:
        """Return the cost of the last `embed` and its hardware, which `plan` uses.

        A cached list has 0 tokens and does not measure speed.
        """
        stats = self.embedded
        return {
            "tokens": stats.tokens,
            "packs": stats.packs,
            "seconds": stats.seconds,
            "budget": stats.budget,
            "processes": self.workers.world_size,
            "precision": f"{str(self.dtype).removeprefix('torch.')}/{self.config.quantize}",
            "gpu": environment.gpu() if self.device.type == "cuda" else "",
        }

    def embedding_stats(self) -> dict[str, dict[str, Any]]:
        """Return label → cost of its last `embed` as a dict of `EmbeddingStats`, for `plan`."""
        return {label: asdict(stats) for label, stats in self.stats_by_label.items()}

    def _vectors(self, packs: list[trie.Pack], done: Callable[[int], object]) -> torch.Tensor:
        width = self.model.config.hidden_size
        owners = self.workers.assign_ranks([len(pack) for pack in packs])
        parts: list[torch.Tensor] = []
        with budget.raise_in_all(self.workers, self.device):
            for pack, rank in zip(packs, owners, strict=True):
                if rank == self.workers.rank:
                    parts.append(self.states(pack))
                else:
                    parts.append(torch.zeros(len(pack.owner), width, device=self.device))
                done(len(pack))
        owner = np.concatenate([np.zeros(0, np.int64), *(pack.owner for pack in packs)])
        order = torch.as_tensor(np.argsort(owner, kind="stable"), device=self.device)
        empty = torch.zeros(0, width, device=self.device)
        return torch.cat([empty, *self.workers.share(parts, owners)])[order]  # (n, d)

    def states(self, pack: trie.Pack) -> torch.Tensor:
        """Return unit vectors, (m, d) float32, of a pack's sequences in the order of the pack."""
        return torch.nn.functional.normalize(self._states(pack).float(), dim=-1)

    def _states(self, pack: trie.Pack) -> torch.Tensor:
        """Return the pooled states, (m, d), of a pack's sequences."""
        if self.shares_prefixes:
            return self.forward.states(self.model, pack)  # (m, d)
        width = int(pack.depth[-1]) + 1
        ids = device.to_device(pack.ids, self.device).view(-1, width)  # (u, width)
        hidden = self.model(input_ids=ids).last_hidden_state  # (u, width, d)
        pooled = _POOLINGS[self.config.pooling](hidden)  # (u, d)
        return pooled[device.to_device(pack.last // width, self.device)]  # (m, d)
