"""Tiny random base models of the real architectures, written to disk.

All weights are random, biases and norms too, so that zeros and ones do not hide errors in masks or
positions. Texts are tokenized byte by byte.
"""

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel

from parity.retrieval.encoder import Encoder
from parity.retrieval.models import adapter, base_model
from parity.retrieval.models.base_model import BaseModel
from parity.run.config.encoder import EncoderConfig
from parity.run.config.training import TrainingConfig

WINDOW = 8
"""Tokens that a sliding-window model looks back on, itself included."""
LONGEST = 40
"""Tokens in the longest of `sequences()`."""
BOS, EOS = 1, 2
TEXTS = [
    "Adds the denominators when adding fractions",
    "When multiplying decimals, divides by the wrong power of 10",
    "½ ≠ 0.2; what is 3²?\n",
    "a",
    " ".join(["borrowing"] * 90),
]
"""Short, long and unusual texts, for tokenizers and embeddings of real models."""
SPECIAL = ("<pad>", "<s>", "</s>")

_SLIDING = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
_GEMMA2 = {"sliding_window": WINDOW, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 4.0}
_GEMMA3 = {
    "sliding_window": WINDOW,
    "query_pre_attn_scalar": 8,
    "layer_types": ["sliding_attention", "full_attention"],
}
_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral": ("mistral", {"sliding_window": WINDOW}),
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {}),
    "qwen2-sliding": ("qwen2", _SLIDING),
    "qwen3": ("qwen3", {}),
    "qwen3-sliding": ("qwen3", _SLIDING),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", _GEMMA2),
    "gemma3": ("gemma3_text", _GEMMA3),
    "embedding-gemma": ("gemma3_text", {**_GEMMA3, "use_bidirectional_attention": True}),
    "bert": ("bert", {}),
    "electra": ("electra", {}),
}
BIDIRECTIONAL = ("bert", "electra", "embedding-gemma")
CAUSAL = tuple(name for name in _FAMILIES if name not in BIDIRECTIONAL)
SLIDING = ("mistral", "qwen2-sliding", "qwen3-sliding", "gemma2", "gemma3")


def write(folder: Path, family: str, *, seed: int = 0, **changes: Any) -> BaseModel:
    """Write config.json, model.safetensors and tokenizer.json into `folder`; return the base.

    Args:
        folder: target folder, created if missing.
        family: name in `CAUSAL` or `BIDIRECTIONAL`.
        seed: seed of the weights.
        changes: values of config.json that differ from the family's.
    """
    kind, differences = _FAMILIES[family]
    tokenizer = tokenizer_of(kind)
    shape = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "initializer_range": 0.2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(
            AutoConfig.for_model(kind, **{**shape, **differences, **changes})
        )
        for weight in model.parameters():
            if weight.ndim == 1:
                noise = torch.randn(weight.shape).to(weight)  # equal on every device
                weight.data.add_(noise, alpha=0.1)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return base_model.describe(family, folder)


def write_unsupported(folder: Path, kind: str) -> BaseModel:
    """Write a causal model that ignores `attn_implementation` (`bloom`, `mpt`)."""
    tokenizer = tokenizer_of(kind)
    shapes: dict[str, dict[str, Any]] = {
        "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
        "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128},
    }
    settings = {**shapes[kind], "vocab_size": tokenizer.get_vocab_size(), "eos_token_id": EOS}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModel.from_config(AutoConfig.for_model(kind, **settings)).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return base_model.describe(kind, folder)


def tokenizer_of(kind: str) -> Tokenizer:
    """Return a byte tokenizer that prepends BOS, and for BERT also appends EOS."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: index for index, text in enumerate([*SPECIAL, *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    closing = " </s>" if kind == "bert" else ""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"<s> $A{closing}", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    return tokenizer


def load(base: BaseModel, folder: Path | None = None, **changes: Any) -> Encoder:
    """Load an encoder on the CPU in fp32, with the adapter in `folder` if given.

    The token budget is the minimum, so that `sequences()` gives several packs.
    """
    settings = {"precision": "fp32", "device": "cpu", "token_budget": 64, **changes}
    return Encoder(base, EncoderConfig.model_validate(settings), adapter=folder)


def attach(encoder: Encoder, seed: int = 0, **changes: Any) -> None:
    """Attach an adapter to the encoder's model and add noise to its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = TrainingConfig.model_validate({"r": 4, "lora_alpha": 8.0, **changes})
        encoder.model = adapter.attach(encoder.model, config)
        for weight in encoder.model.parameters():
            if weight.requires_grad:
                noise = torch.randn(weight.shape).to(weight)  # equal on every device
                weight.data.add_(noise, alpha=0.1)
    encoder.model.eval()


def encode(encoder: Encoder, token_ids: list[list[int]]) -> torch.Tensor:
    """Return vectors with a graph over this process's packs, in the order of the input."""
    return encoder._vectors(encoder.packs(token_ids), lambda _: None)


def zeroing_optimizer(encoder: Encoder) -> torch.optim.Optimizer:
    """Return an optimizer that is used only to clear the gradients of trained weights."""
    return torch.optim.SGD(
        [parameter for parameter in encoder.model.parameters() if parameter.requires_grad]
    )


def sequences(seed: int = 0, count: int = 30) -> list[list[int]]:
    """Return token ids: most continue a prefix of an earlier sequence, some are duplicates.

    The longest has `LONGEST` tokens, and packs of 64 tokens split some subtrees.
    """
    draw = random.Random(seed)
    letters = range(len(SPECIAL), len(SPECIAL) + 256)
    result = [[BOS, *draw.choices(letters, k=LONGEST - 2), EOS]]
    while len(result) < count:
        stem = draw.choice(result)
        stem = stem[: draw.randint(1, len(stem))]
        tail = draw.choices(letters, k=draw.randint(0, max(0, min(9, LONGEST - len(stem)))))
        result.append([*stem, *tail])
    result.append(list(draw.choice(result)))
    draw.shuffle(result)
    return result


def embed_separately(model: Any, token_ids: list[list[int]], pooling: str = "last") -> torch.Tensor:
    """Return embeddings from one forward for each sequence, with the model's own mask."""
    rows = []
    for tokens in token_ids:
        hidden = model(input_ids=torch.tensor([tokens]), use_cache=False).last_hidden_state[0]
        pooled = {"last": hidden[-1], "cls": hidden[0], "mean": hidden.mean(dim=0)}[pooling]
        rows.append(torch.nn.functional.normalize(pooled.float(), dim=-1))
    return torch.stack(rows)


def load_plain(base: BaseModel) -> Any:
    """Load the model of `base` with transformers and its eager attention."""
    return AutoModel.from_pretrained(
        str(base.folder), dtype=torch.float32, attn_implementation="eager"
    ).eval()
