"""The peers' own encoding, around a model that is in memory already.

Their classes load a model from a folder; here they are handed one, and everything they do with
texts, batches and pooling is their own code.
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

from benchmarks.models import Held, twin
from benchmarks.works import INSTRUCTION, PROMPT, Work

Vectors = NDArray[np.float32]
"""(n, d) float32, unit norm."""


class FlagEmbedding:
    """`FlagICLModel`: padded batches sorted by length, instruction and examples its own.

    Attributes:
        name: for the report.
        trials: calls of the model at the start of an `encode` whose result it throws away: it
            tries the first batch for memory.
        model: the Hugging Face module it runs.
    """

    name, trials = "FlagEmbedding", 1

    def __init__(self, held: Held) -> None:
        """Take a model.

        Args:
            held: the run's model.
        """
        self.model = twin(held.model)
        self._embedder = _Embedder(self.model, held.peers, str(held.device))

    def encode(self, work: Work, batch: int) -> Vectors:
        """Return the embeddings of a work's texts.

        Args:
            work: the texts.
            batch: texts in a batch.
        """
        with contextlib.redirect_stderr(io.StringIO()):  # its bars
            if work.name == "corpus":
                # `encode_corpus` would first carry the model to the CPU and back.
                found = self._embedder.encode(work.texts, batch_size=batch, max_length=work.limit)
            else:
                self._embedder.examples_for_task = work.examples or None
                self._embedder.set_examples()
                found = self._embedder.encode_queries(work.bare, batch_size=batch)
        return np.asarray(found, dtype=np.float32)


class _Embedder(ICLLLMEmbedder):  # type: ignore[misc]  # without types
    """FlagEmbedding's embedder with a model from memory; only the loading is left out."""

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
        """Leave the model where it is: its weights are every contender's."""


class SentenceTransformers:
    """A `SentenceTransformer` of transformer, last-token pooling and norm.

    Where FlashAttention is there, its inputs are unpadded (varlen), which is its fastest way.

    Attributes:
        name: for the report.
        trials: calls whose result it throws away.
        model: the Hugging Face module it runs.
        whole: the `SentenceTransformer`.
    """

    name, trials = "sentence-transformers", 0

    def __init__(self, held: Held) -> None:
        """Take a model.

        Args:
            held: the run's model.
        """
        self.model = twin(held.model)
        half = held.dtype in (torch.float16, torch.bfloat16)  # all that its kernels take
        if half and held.device.type == "cuda" and is_flash_attn_2_available():
            self.model.set_attn_implementation("flash_attention_2")
        modules = [
            _Given(str(held.peers), model_kwargs={"given": self.model}),
            Pooling(self.model.config.hidden_size, pooling_mode="lasttoken"),
            Normalize(),
        ]
        self.whole = SentenceTransformer(modules=modules, device=str(held.device))

    def encode(self, work: Work, batch: int) -> Vectors:
        """Return the embeddings of a work's texts.

        Args:
            work: the texts.
            batch: texts in a batch.
        """
        found = self.whole.encode(work.texts, batch_size=batch, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)


class _Given(Transformer):
    """Its transformer module with a model from memory; only the loading is left out."""

    def _load_model(self, *_: Any, given: Any = None, **__: Any) -> Any:
        return given


class Seen:
    """What reaches a model, as it is called.

    Attributes:
        calls: tokens of each call, fill included.
        rows: the sequences without fill, where they are written down.
    """

    def __init__(self, model: Any, *, rows: bool = False) -> None:
        """Watch a model until the end of a `with`.

        Args:
            model: a Hugging Face module.
            rows: write sequences down too, which waits for the device.
        """
        self.calls: list[int] = []
        self.rows: list[tuple[int, ...]] = []
        self._model, self._wanted = model, rows

    def __enter__(self) -> "Seen":
        # Not a hook: sentence-transformers and PEFT call `forward` past them.
        forward = self._model.forward

        def noted(*args: Any, **given: Any) -> Any:
            self._note(args, given)
            return forward(*args, **given)

        self._model.forward = noted
        return self

    def __exit__(self, *_: object) -> None:
        del self._model.forward

    def _note(self, args: Sequence[Any], given: dict[str, Any]) -> None:
        ids = given["input_ids"] if "input_ids" in given else args[0]
        self.calls.append(ids.numel())
        if self._wanted:
            self.rows += _rows(ids, given)


def _rows(ids: torch.Tensor, given: dict[str, Any]) -> list[tuple[int, ...]]:
    ends = given.get("cu_seq_lens_q")
    if ends is not None:  # unpadded: sequences end to end
        stops, flat = ends.tolist(), ids[0].tolist()
        return [tuple(flat[a:b]) for a, b in itertools.pairwise(stops)]
    mask = given["attention_mask"]
    return [
        tuple(token for token, kept in zip(row, seen, strict=True) if kept)
        for row, seen in zip(ids.tolist(), mask.tolist(), strict=True)
    ]
