"""Checks of files before publishing: no secrets, local paths, pickles or competition text."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from parity.run.errors import BadData

SECRETS = re.compile(
    rb"hf_[A-Za-z0-9]{30,}|gh[opsru]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|KGAT_\w{20,}"
    rb"|AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|KAGGLE_(?:KEY|API_TOKEN)\s*=\s*\S+"
    rb"|(?i:api_?key|token|secret|password|passwd|\"key)[\"']?\s*[:=]\s*[\"'][\w-]{16,}[\"']"
)
PATHS = re.compile(
    rb"(?<![\w.$~:/])/(?:home|root|Users|work|mnt|media|tmp|var|opt|data|srv|scratch)/[\w.-]+"
    rb"|\b[A-Z]:\\+[A-Za-z]"
)
MIN_QUOTE = 25
"""Characters; a shorter text of the competition may come from anywhere."""

_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npz", ".dill")
_MAGIC = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
_WHEEL, _WEIGHTS, _GGUF = ".whl", ".safetensors", ".gguf"


def scan(folder: Path, texts: Iterable[str] = ()) -> None:
    """Check each file of a folder before it is sealed.

    Of weights only the header is read, since only the header can contain text. Wheels are skipped:
    their lock verifies them.

    Args:
        folder: a flat folder.
        texts: texts of the competition without a license to publish them.

    Raises:
        BadData: names the file and the problem, never the secret itself.
    """
    quotes = [text for text in set(texts) if len(text) >= MIN_QUOTE]
    for path in sorted(folder.iterdir()):
        if path.suffix == _WHEEL:
            continue
        content = _read_text_bytes(path)
        name = f"{folder.name}/{path.name}"
        _refuse_pickle(path, content)
        if SECRETS.search(content):
            raise BadData(f"possible key or token in {name}. Remove it")
        if match := PATHS.search(content):
            raise BadData(f"absolute path {_decode(match[0])} in {name}. Ship relative paths")
        for quote in _quotes(content, quotes):
            raise BadData(
                f"competition text without a license ({len(quote)} characters) in {name}. "
                "Set data.license, or ship ids"
            )


def refuse_pickles(folder: Path) -> None:
    """Check that no file of a folder can run code on loading: the only check of a base.

    Its texts are already public, and a vocabulary may contain strings that look like paths.

    Raises:
        BadData: names the file.
    """
    for path in sorted(folder.iterdir()):
        with path.open("rb") as handle:
            _refuse_pickle(path, handle.read(len(max(_MAGIC, key=len))))


def _refuse_pickle(path: Path, content: bytes) -> None:
    if path.suffix in _PICKLED or content.startswith(_MAGIC):
        raise BadData(
            f"{path.parent.name}/{path.name} is a pickle or an archive, which can run code. "
            "Ship safetensors"
        )


def _read_text_bytes(path: Path) -> bytes:
    """Return the bytes of a file that can contain text."""
    if path.suffix == _WEIGHTS:
        with path.open("rb") as handle:
            size = int.from_bytes(handle.read(8), "little")
            return handle.read(min(size, path.stat().st_size))
    if path.suffix == _GGUF:
        with path.open("rb") as handle:
            return handle.read(4)
    return path.read_bytes()


def _quotes(content: bytes, texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts that `content` contains, as UTF-8 or as JSON."""
    for text in texts:
        escaped = json.dumps(text)[1:-1].encode("utf-8")
        readable = json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8")
        if any(form in content for form in (text.encode("utf-8"), escaped, readable)):
            yield text


def _decode(content: bytes) -> str:
    return content.decode("utf-8", "replace")
