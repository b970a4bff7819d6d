"""Training steps of each contender: its forward, backward and AdamW on the same texts.

LoRA with one rank on every linear layer, without dropout, loss over all passages of the batch at
one temperature. On CUDA the peers run under autocast to bf16, as their trainers do.
"""

import contextlib
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from FlagEmbedding.finetune.embedder.decoder_only.icl.dataset import (
    AbsEmbedderSameDatasetCollator,
    DecoderOnlyEmbedderICLSameDatasetTrainDataset,
)
from FlagEmbedding.finetune.embedder.decoder_only.icl.modeling import BiDecoderOnlyEmbedderICLModel
from peft import LoraConfig, TaskType, get_peft_model
from sentence_transformers.sentence_transformer import losses
from transformers import AutoTokenizer

from benchmarks.models import LoadedModel, twin
from benchmarks.ours import encoder
from benchmarks.peers import SentenceTransformers
from benchmarks.works import INSTRUCTION, PROMPT, Drawn, Group
from parity.competition.query import Position, QueryId
from parity.retrieval.models import adapter
from parity.run.config.training import TrainingConfig
from parity.training.batches import Batch
from parity.training.gradcache import add_gradient

RANK, ALPHA, TEMPERATURE, RATE = 32, 64, 0.02, 1e-4
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_SUFFIX = "\n<response>"
_EXAMPLE = 256  # tokens of an example's query and passage, as in FlagEmbedding's recipe


class Learner(Protocol):
    """One way to train.

    Attributes:
        name: name for the report.
        model: Hugging Face module; its trainable weights are the adapter.
    """

    name: str
    model: Any

    def backward(self, group: Group) -> torch.Tensor:
        """Add a batch's gradients to the weights, from its texts on; return its loss, ().

        The loss is not read at each step, which would stall the GPU.
        """


class Ours:
    """Queries and passages in one packed forward."""

    name = "kaggle-parity"

    def __init__(self, loaded: LoadedModel, *, budget: int, checkpointing: bool) -> None:
        """Take a model.

        Args:
            loaded: model of the run.
            budget: tokens in a pack.
            checkpointing: recompute layers in the backward.
        """
        self.encoder = encoder(loaded, budget)
        self.model = self.encoder.model
        self._config = TrainingConfig(
            r=RANK,
            lora_alpha=ALPHA,
            target_modules=tuple(_TARGETS),
            temperature=TEMPERATURE,
            token_budget=budget,
        )
        attached = adapter.attach(self.model, self._config)
        self.encoder.model = attached.to(self.encoder.device)
        if checkpointing:
            self.encoder.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.encoder.model.train()

    def tokens(self, group: Group) -> tuple[list[list[int]], list[list[int]]]:
        """Return the token ids of a batch's queries and passages."""
        read = self.encoder.tokenize
        return read(group.queries, PROMPT.query_max_length), read(
            group.passages, PROMPT.passage_max_length
        )

    def backward(self, group: Group) -> torch.Tensor:
        """Add a batch's gradients to the weights; return its loss."""
        count, size = len(group.queries), group.size
        batch = Batch(
            tuple(QueryId(str(index)) for index in range(count)),
            tuple(Position(index) for index in range(len(group.passages))),
            tuple(range(0, count * size, size)),
            ((),) * count,
        )
        tokens = self.tokens(group)
        return add_gradient(self.encoder, tokens, batch, self._config, seed="bench").loss


class FlagEmbedding:
    """Its model class on what its collator pads; query and passages in two forwards."""

    name = "FlagEmbedding"

    def __init__(self, loaded: LoadedModel, *, budget: int, checkpointing: bool) -> None:  # noqa: ARG002
        """Take a model.

        Args:
            loaded: model of the run.
            budget: not used.
            checkpointing: recompute layers in the backward.
        """
        self.model = twin(loaded.model)
        tokenizer = AutoTokenizer.from_pretrained(str(loaded.peers))
        lora = LoraConfig(
            task_type=TaskType.FEATURE_EXTRACTION,
            r=RANK,
            lora_alpha=ALPHA,
            lora_dropout=0.0,
            target_modules=_TARGETS,
        )
        self._whole = BiDecoderOnlyEmbedderICLModel(
            get_peft_model(self.model, lora),
            tokenizer=tokenizer,
            temperature=TEMPERATURE,
            sentence_pooling_method="last_token",
            normalize_embeddings=True,
        )
        self._device, self._dtype = loaded.device, loaded.dtype
        self._collate = AbsEmbedderSameDatasetCollator(
            tokenizer=tokenizer,
            query_max_len=PROMPT.query_max_length,
            passage_max_len=PROMPT.passage_max_length,
            pad_to_multiple_of=8,
            padding=True,
            return_tensors="pt",
        )
        if checkpointing:
            self._whole.enable_input_require_grads()
            self._whole.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        self._whole.train()

    def backward(self, group: Group) -> torch.Tensor:
        """Add a batch's gradients to the weights; return its loss."""
        padded = self._collate([(group.queries, group.passages, None, False)])
        inputs = {key: padded[key].to(self._device) for key in ("queries", "passages")}
        with autocast(self._device, self._dtype):
            loss: torch.Tensor = self._whole(**inputs).loss
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        return loss.detach()


class SentenceTransformersLoss:
    """`MultipleNegativesRankingLoss` with hard negatives: one forward for each column."""

    name = "sentence-transformers"

    def __init__(self, loaded: LoadedModel, *, budget: int, checkpointing: bool) -> None:  # noqa: ARG002
        """Take a model.

        Args:
            loaded: model of the run.
            budget: not used.
            checkpointing: recompute layers in the backward.
        """
        peer = SentenceTransformers(loaded)
        self.model, self._device, self._dtype = peer.model, loaded.device, loaded.dtype
        peer.whole.add_adapter(
            LoraConfig(
                task_type=TaskType.FEATURE_EXTRACTION,
                r=RANK,
                lora_alpha=ALPHA,
                lora_dropout=0.0,
                target_modules=_TARGETS,
            )
        )
        if checkpointing:
            self.model.enable_input_require_grads()
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self._whole = peer.whole.train()
        self._loss = losses.MultipleNegativesRankingLoss(self._whole, scale=1 / TEMPERATURE)

    def backward(self, group: Group) -> torch.Tensor:
        """Add a batch's gradients to the weights; return its loss."""
        size = group.size
        columns = [group.queries, *(group.passages[index::size] for index in range(size))]
        features = [
            {
                key: value.to(self._device) if isinstance(value, torch.Tensor) else value
                for key, value in self._whole.preprocess(column).items()
            }
            for column in columns
        ]
        with autocast(self._device, self._dtype):
            loss: torch.Tensor = self._loss(features, torch.zeros(0))
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        return loss.detach()


LEARNERS: dict[str, Any] = {
    learner.name: learner for learner in (Ours, FlagEmbedding, SentenceTransformersLoss)
}
"""Name → class of a contender; ours first."""


def autocast(device: torch.device, dtype: torch.dtype) -> Any:
    """Return the autocast that the peers' trainers put around a forward with `bf16`."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        return torch.autocast("cuda", dtype=dtype)
    return contextlib.nullcontext()


def adapter_of(learner: Learner) -> dict[str, torch.nn.Parameter]:
    """Return name in the model → trainable weight, with equal names for all contenders."""
    return {
        name[name.index("layers.") :]: weight
        for name, weight in learner.model.named_parameters()
        if weight.requires_grad
    }


def sampled(drawn: Drawn, folder: Path, seed: int) -> Group:
    """Return a batch's texts as FlagEmbedding's dataset writes them.

    Each query gets up to five examples, drawn at random from its batch.

    Args:
        drawn: the rows.
        folder: of the peers' tokenizer.
        seed: of Python's generator, which that dataset draws from.
    """
    dataset: Any = object.__new__(DecoderOnlyEmbedderICLSameDatasetTrainDataset)
    dataset.tokenizer = AutoTokenizer.from_pretrained(str(folder))
    dataset.shuffle_ratio = 0.0
    dataset.args = SimpleNamespace(
        train_group_size=len(drawn.negatives[0]) + 1,
        query_max_len=PROMPT.query_max_length,
        passage_max_len=PROMPT.passage_max_length,
        example_query_max_len=_EXAMPLE,
        example_passage_max_len=_EXAMPLE,
        query_instruction_for_retrieval=INSTRUCTION,
        query_instruction_format="<instruct>{}\n<query>{}",
        passage_instruction_for_retrieval=None,
        knowledge_distillation=False,
        retrieval_use_examples=True,
        icl_suffix_str=_SUFFIX,
    )
    close = f"{_SUFFIX}{dataset.tokenizer.eos_token}"
    dataset.suffix = dataset.tokenizer(close, add_special_tokens=False)["input_ids"]
    dataset.prefix = dataset.tokenizer(dataset.tokenizer.bos_token, add_special_tokens=False)[
        "input_ids"
    ]
    rows = {
        "query": drawn.plain,
        "pos": [[text] for text in drawn.positives],
        "neg": drawn.negatives,
    }
    state = random.getstate()
    try:
        random.seed(seed)
        texts = dataset._create_batch_data(rows)  # noqa: SLF001  # its sampling, not a copy of it
    finally:
        random.setstate(state)
    return Group(texts[0], texts[1])
