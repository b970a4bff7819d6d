"""One encoder: base weights, adapter, tokens in, unit vectors out.

Causal models run as packed prefix tries (last-token pooling); other encoders as batches of equal
length, so nothing is ever padded.
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
from parity.retrieval.models import fp8, loading
from parity.retrieval.models.base_model import BaseModel
from parity.retrieval.search import Embeddings
from parity.retrieval.tokenizer import Tokenizer, Tokens
from parity.run import digest, environment
from parity.run.config.run_file import EncoderConfig
from parity.run.errors import BadConfig
from parity.run.progress import progress, tell

_POOLINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "last": lambda hidden: hidden[:, -1],
    "cls": lambda hidden: hidden[:, 0],
    "mean": lambda hidden: hidden.mean(dim=1),
}
"""Pooling → how (u, t, d) states of equally long sequences become (u, d)."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """What one `embed` took, over all processes.

    Attributes:
        tokens: that were computed, shared prefixes once; 0 where the answer was kept.
        packs: in how many packs.
        seconds: wall time.
        sequences: that were asked.
        flat: tokens of all of them, each prefix as often as it stands there.
        kept: how many of `flat` were answered from disk, and tell nothing of speed.
        budget: tokens allowed in a pack, in the end: less than the run says where memory ran out.
        peak: bytes on the GPU beside the weights; 0 where it is not known.
    """

    tokens: int = 0
    packs: int = 0
    seconds: float = 0.0
    sequences: int = 0
    flat: int = 0
    kept: int = 0
    budget: int = 0
    peak: int = 0


class Encoder(Tokenizer):
    """A loaded model, which reads texts as its `Reader` does.

    Attributes:
        model: the Hugging Face module, with the adapter where there is one.
        device: where it lies.
        dtype: compute dtype.
        adapter: sha256 of the adapter's weights, empty for the bare base.
        workers: the processes that share its packs.
        embedded: what the last `embed` took.
        forward: runs a pack of a model whose prefixes are shared.
        lists: label → what the last `embed` under it took.
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
        """Load base and adapter.

        Args:
            base: the base weights.
            config: layers, pooling, precision, device.
            adapter: the adapter's folder; None runs the bare base.
            workers: the processes that share its packs; None means alone.
            cache: keeps embeddings on disk, unless the weights are changed; None keeps none.

        Raises:
            BadConfig: the pooling does not fit the model, or the device cannot do the precision.
            Mismatch: weights would be newly initialized, or the adapter does not fit.
        """
        self.workers = workers or ProcessGroup()
        self.embedded = Embedded()
        self.lists: dict[str, Embedded] = {}
        self.device = loading.device_of(config)
        self.dtype = loading.dtype_of(config, self.device)
        self.model = loading.load(base, config, self.device, self.dtype)
        causal = attention.causal(self.model, self.device)
        if causal != (config.pooling == "last"):
            raise BadConfig(
                f"encoder.pooling = {config.pooling!r}: {self.model.config.model_type} is "
                f"{'causal and needs last' if causal else 'no causal model; mean or cls'}"
            )
        super().__init__(base, config, self.model.config, causal=causal)
        whole = not device.spread(self.model, base.name)
        self.shares = causal and attention.adopt(self.model, self.device)
        if causal and not self.shares:
            tell(
                f"{self.model.config.model_type}: its attention cannot be replaced, so no prefix "
                "is shared; equally long texts run together, unpadded"
            )
        plain = whole and not getattr(self.model, "is_quantized", False)
        kind = attention.backend(config.attention, self.device, plain=plain)
        tail = LastLayer(self.model) if self.shares else None
        self.forward = Forward(self.device, self.dtype, kind, tail)
        self.adapter = self._settings = ""
        if adapter is not None:
            self.model, record = adapters.load(self.model, adapter, base, layers=config.num_layers)
            if whole:
                self.model.to(self.device)
            self.adapter, self._settings = record.weights, record.settings
        self.model.eval()
        if config.quantize == "fp8":
            fp8.convert(self.model)
        self._cache, self._at_rest = cache, self.model

    def digest(self) -> str:
        """Return the digest of everything that decides an embedding but texts and hardware."""
        apart = {"base", "revision", "device", "parallelism", "attention"}
        how = self.config.model_dump(mode="json", exclude=apart)
        return digest.of_value([self.base.digest(), self.adapter, how, str(self.dtype)])

    def embed(self, sequences: Sequence[Tokens], label: str = "encode") -> Embeddings:
        """Return (n, d) float32 unit vectors, without gradients, in the order asked.

        The result depends on the sequences and the token budget only. Where memory runs out, the
        budget is halved, for this list and all later ones: `config` and `digest` say so.

        Raises:
            BadConfig: memory runs out at the smallest budget that can help.
        """
        return budget.halving(
            self.config.token_budget,
            lambda most: self._embed(sequences, most, label),
            floor=max(map(len, sequences), default=0),
            release=self.release,
        )

    def release(self) -> None:
        """Give back what was kept on the device for packs of the sizes there were."""
        self.forward.release()

    def _embed(self, sequences: Sequence[Tokens], most: int, label: str) -> Embeddings:
        started = time.monotonic()
        self.config = self.config.model_copy(update={"token_budget": most})
        cache, name = self._keeping(sequences)
        shape, flat = (len(sequences), self.model.config.hidden_size), sum(map(len, sequences))
        vectors = cache.shared(name, shape, self.workers, self.device) if cache else None
        took = Embedded(sequences=len(sequences), flat=flat, kept=flat, budget=most)
        if vectors is None:
            packs, before = self.packs(sequences), device.taken(self.device)
            tokens = sum(map(len, packs))
            with torch.inference_mode(), progress(label, tokens, "tok") as bar:
                vectors = self._vectors(packs, bar.update).cpu().numpy()
            peak = device.risen(self.device, before)
            took = replace(took, tokens=tokens, packs=len(packs), kept=0, peak=peak)
            if cache and self.workers.main:
                cache.write(name, vectors)
        self.embedded = replace(took, seconds=round(time.monotonic() - started, 3))
        self.lists[label] = self.embedded
        return vectors

    def _keeping(self, sequences: Sequence[Tokens]) -> tuple[EmbeddingCache | None, str]:
        """Return where embeddings are kept and under what name; None where they are not.

        Weights that training may change, or did, are no longer those that the digests name: the
        module is another one, or wants gradients. Nothing of them is kept, nor looked up.
        """
        changing = any(weight.requires_grad for weight in self.model.parameters())
        if self._cache is None or changing or self.model is not self._at_rest or not sequences:
            return None, ""
        where = [*device.kind(self.device), self.forward.kind, self.config.parallelism]
        return self._cache, caches.name([self.digest(), self._settings, *where], sequences)

    def speed(self) -> dict[str, Any]:
        """Return what the last `embed` took, and on what: a fact for `plan`.

        No tokens were computed of a list that was kept on disk, which tells nothing of speed.
        """
        last = self.embedded
        return {
            "tokens": last.tokens,
            "packs": last.packs,
            "seconds": last.seconds,
            "budget": last.budget,
            "processes": self.workers.world,
            "precision": f"{str(self.dtype).removeprefix('torch.')}/{self.config.quantize}",
            "gpu": environment.gpu() if self.device.type == "cuda" else "",
        }

    def took(self) -> dict[str, dict[str, Any]]:
        """Return label → what its list took, plain values of `Embedded`: facts for `plan`."""
        return {label: asdict(one) for label, one in self.lists.items()}

    def _vectors(self, packs: list[trie.Pack], done: Callable[[int], object]) -> torch.Tensor:
        width = self.model.config.hidden_size
        owners = self.workers.deal([len(pack) for pack in packs])
        parts: list[torch.Tensor] = []
        with budget.together(self.workers, self.device):
            for pack, rank in zip(packs, owners, strict=True):
                if rank == self.workers.rank:
                    parts.append(self.states(pack))
                else:
                    parts.append(torch.zeros(len(pack.owner), width, device=self.device))
                done(len(pack))
        owner = np.concatenate([np.zeros(0, np.int64), *(pack.owner for pack in packs)])
        back = torch.as_tensor(np.argsort(owner, kind="stable"), device=self.device)
        none = torch.zeros(0, width, device=self.device)
        return torch.cat([none, *self.workers.share(parts, owners)])[back]  # (n, d)

    def states(self, pack: trie.Pack) -> torch.Tensor:
        """Return (m, d) float32 unit vectors of a pack's own sequences, in the pack's order."""
        return torch.nn.functional.normalize(self._states(pack).float(), dim=-1)

    def _states(self, pack: trie.Pack) -> torch.Tensor:
        """Return the pooled states (m, d) of a pack's owned sequences."""
        if self.shares:
            return self.forward.states(self.model, pack)  # (m, d)
        width = int(pack.depth[-1]) + 1
        ids = device.sent(pack.ids, self.device).view(-1, width)  # (u, width)
        hidden = self.model(input_ids=ids).last_hidden_state  # (u, width, d)
        pooled = _POOLINGS[self.config.pooling](hidden)  # (u, d)
        return pooled[device.sent(pack.last // width, self.device)]  # (m, d)
