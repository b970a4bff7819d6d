"""Convert a GGUF file to fp32 safetensors, config and tokenizer, once."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from parity.run.progress import progress

_GGUF_FIELDS = ("tokens", "merges", "token_type", "bos_token_id", "eos_token_id")
_CONTROL = 3  # token type of special tokens in GGUF


def convert(package: Path, target: Path) -> None:
    """Dequantize the GGUF file of a package to fp32 safetensors with config and tokenizer.

    `save_pretrained` refuses a model loaded from GGUF, so this writes config and weights itself.
    """
    # Imported here: Kaggle's image does not have it, and only the conversion needs it.
    from gguf import GGUFReader  # noqa: PLC0415

    gguf = next(package.glob("*.gguf"))
    logging.disable_progress_bar()
    with progress(f"dequantize {gguf.name}, once", 3, "step") as bar:
        with contextlib.redirect_stderr(io.StringIO()):  # its bar ignores pipes
            model: Any = AutoModelForCausalLM.from_pretrained(str(package), gguf_file=gguf.name)
        bar.update(1)
        _write_tokenizer(GGUFReader(gguf), target)
        bar.update(1)
        _write_model(model, target)
        bar.update(1)


def _write_model(model: Any, target: Path) -> None:
    config = model.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        config.pop(key, None)
    config["dtype"] = "float32"
    config["architectures"] = [type(model).__name__]
    (target / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    state = {key: value.contiguous() for key, value in model.model.state_dict().items()}
    save_file(
        {f"model.{key}": value for key, value in state.items()},
        target / "model.safetensors",
        metadata={"format": "pt"},
    )


def _write_tokenizer(reader: Any, target: Path) -> None:
    """Write the byte-level BPE of a GGUF file as `tokenizer.json`.

    transformers would read it as a Code Llama tokenizer and add four tokens without an embedding.
    No chat template is written, since sentence-transformers would apply it.
    """
    fields = {key: reader.fields[f"tokenizer.ggml.{key}"].contents() for key in _GGUF_FIELDS}
    vocabulary: list[str] = fields["tokens"]
    merges = [tuple(pair.split(" ")) for pair in fields["merges"]]
    indices = {text: index for index, text in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(indices, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(vocabulary, fields["token_type"], strict=True)
    control = [text for text, kind in kinds if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in control])
    tokenizer.save(str(target / "tokenizer.json"))
    names = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": vocabulary[fields["bos_token_id"]],
        "eos_token": vocabulary[fields["eos_token_id"]],
        "pad_token": vocabulary[fields["eos_token_id"]],
    }
    (target / "tokenizer_config.json").write_text(json.dumps(names, indent=1, sort_keys=True))
