"""Encoding by the peers, around a model that is already in memory.

Their classes load a model from a folder; these receive one, and everything they do with texts,
batches and pooling is the peers' code.
"""

import contextlib
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from FlagEmbedding.abc.inference import AbsEmbedder
from FlagEmbedding.inference.embedder.decoder_only.icl import ICLLLMEmbedder
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import AutoTokenizer
from transformers.utils.import_utils import is_flash_attn_2_available

from benchmarks.models import LoadedModel, twin
from benchmarks.works import INSTRUCTION, PROMPT, Work

Vectors = NDArray[np.float32]
"""(n, d) float32, unit norm."""


class FlagEmbedding:
    """`FlagICLModel`: padded batches sorted by length, its instruction and examples.

    Attributes:
        name: name for the report.
        trials: calls of the model at the start of an `encode` whose result is discarded: it tries
            the first batch for memory.
        model: Hugging Face module.
    """

    name, trials = "FlagEmbedding", 1

    def __init__(self, loaded: LoadedModel) -> None:
        """Take a model.

        Args:
            loaded: model of the run.
        """
        self.model = twin(loaded.model)
        self._embedder = _Embedder(self.model, loaded.peers, str(loaded.device))

    def encode(self, work: Work, batch: int) -> Vectors:
        """Return the embeddings of a work's texts.

        Args:
            work: texts.
            batch: number of texts in a batch.
        """
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            if work.name == "corpus":
                # `encode_corpus` first moves the model to the CPU and back.
                vectors = self._embedder.encode(work.texts, batch_size=batch, max_length=work.limit)
            else:
                self._embedder.examples_for_task = work.examples or None
                self._embedder.set_examples()
                vectors = self._embedder.encode_queries(work.plain, batch_size=batch)
        return np.asarray(vectors, dtype=np.float32)


class _Embedder(ICLLLMEmbedder):  # type: ignore[misc]  # without types
    """FlagEmbedding's embedder with a model from memory instead of from disk."""

    def __init__(self, model: Any, folder: Path, device: str) -> None:
        half = model.dtype == torch.bfloat16
        AbsEmbedder.__init__(
            self,
            str(folder),
            use_fp16=False,
            use_bf16=half,
            query_instruction_for_retrieval=INSTRUCTION,
            query_instruction_format="<instruct>{}\n<query>{}",
            devices=[device],
            query_max_length=PROMPT.query_max_length,
            passage_max_length=PROMPT.passage_max_length,
        )
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self.model = model
        self.examples_for_task: list[dict[str, str]] | None = None
        self.examples_instruction_format = "<instruct>{}\n<query>{}\n<response>{}"
        self.suffix = "\n<response>"
        self.query_pool = None
        self.set_examples()

    def __del__(self) -> None:
        """Keep the model on its device, because all contenders share its weights."""


class SentenceTransformers:
    """A `SentenceTransformer` of transformer, last-token pooling and norm.

    With FlashAttention its inputs are unpadded (varlen), which is fastest.

    Attributes:
        name: name for the report.
        trials: calls whose result is discarded.
        model: Hugging Face module.
        whole: `SentenceTransformer` around the module.
    """

    name, trials = "sentence-transformers", 0

    def __init__(self, loaded: LoadedModel) -> None:
        """Take a model.

        Args:
            loaded: model of the run.
        """
        self.model = twin(loaded.model)
        half = loaded.dtype in (torch.float16, torch.bfloat16)  # types that its kernels support
        if half and loaded.device.type == "cuda" and is_flash_attn_2_available():
            self.model.set_attn_implementation("flash_attention_2")
        modules = [
            _LoadedTransformer(str(loaded.peers), model_kwargs={"loaded": self.model}),
            Pooling(self.model.config.hidden_size, pooling_mode="lasttoken"),
            Normalize(),
        ]
        self.whole = SentenceTransformer(modules=modules, device=str(loaded.device))

    def encode(self, work: Work, batch: int) -> Vectors:
        """Return the embeddings of a work's texts.

        Args:
            work: texts.
            batch: number of texts in a batch.
        """
        vectors = self.whole.encode(work.texts, batch_size=batch, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)


class _LoadedTransformer(Transformer):
    """The transformer module with a model from memory instead of from disk."""

    def _load_model(self, *_: Any, loaded: Any = None, **__: Any) -> Any:
        return loaded


class Seen:
    """A record of the calls of a model.

    Attributes:
        calls: tokens of each call, padding included.
        rows: sequences without padding, if they are recorded.
    """

    def __init__(self, model: Any, *, rows: bool = False) -> None:
        """Record the calls of a model until the end of a `with` block.

        Args:
            model: Hugging Face module.
            rows: True to record sequences too, which waits for the device.
        """
        self.calls: list[int] = []
        self.rows: list[tuple[int, ...]] = []
        self._model, self._has_rows = model, rows

    def __enter__(self) -> "Seen":
        # Not a hook: sentence-transformers and PEFT call `forward` directly.
        forward = self._model.forward

        def noted(*args: Any, **keywords: Any) -> Any:
            self._note(args, keywords)
            return forward(*args, **keywords)

        self._model.forward = noted
        return self

    def __exit__(self, *_: object) -> None:
        del self._model.forward

    def _note(self, args: Sequence[Any], keywords: dict[str, Any]) -> None:
        ids = keywords["input_ids"] if "input_ids" in keywords else args[0]
        self.calls.append(ids.numel())
        if self._has_rows:
            self.rows += _rows(ids, keywords)


def _rows(ids: torch.Tensor, keywords: dict[str, Any]) -> list[tuple[int, ...]]:
    ends = keywords.get("cu_seq_lens_q")
    if ends is not None:  # unpadded: concatenated sequences
        stops, flat = ends.tolist(), ids[0].tolist()
        return [tuple(flat[a:b]) for a, b in itertools.pairwise(stops)]
    mask = keywords["attention_mask"]
    return [
        tuple(token for token, is_kept in zip(row, seen, strict=True) if is_kept)
        for row, seen in zip(ids.tolist(), mask.tolist(), strict=True)
    ]
