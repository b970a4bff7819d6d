"""What must never leave: secrets, this machine's paths, pickles, the competition's text."""

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
PLACES = re.compile(
    rb"(?<![\w.$~:/])/(?:home|root|Users|work|mnt|media|tmp|var|opt|data|srv|scratch)/[\w.-]+"
    rb"|\b[A-Z]:\\+[A-Za-z]"
)
SHORTEST = 25
"""Characters; a shorter text of the competition may well be somebody else's too."""

_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npz", ".dill")
_MAGIC = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
_WHEEL, _WEIGHTS, _GGUF = ".whl", ".safetensors", ".gguf"


def scan(folder: Path, texts: Iterable[str] = ()) -> None:
    """Check every file of a folder that is about to be sealed.

    Of weights the header is read, which is all of them that can hold a text; wheels are the
    business of their lock.

    Args:
        folder: flat.
        texts: what the competition's files say and no license lets out.

    Raises:
        BadData: names the file and what is in it, never the secret itself.
    """
    said = [text for text in set(texts) if len(text) >= SHORTEST]
    for path in sorted(folder.iterdir()):
        if path.suffix == _WHEEL:
            continue
        content = _content(path)
        where = f"{folder.name}/{path.name}"
        _refuse_pickle(path, content)
        if SECRETS.search(content):
            raise BadData(f"{where} holds what looks like a key or a token; take it out")
        if found := PLACES.search(content):
            raise BadData(f"{where} holds an absolute path, {_shown(found[0])}; ship relative ones")
        for quoted in _quoted(content, said):
            raise BadData(
                f"{where} holds text of the competition, which has no license to leave "
                f"({len(quoted)} characters); state one in data.license, or ship ids"
            )


def refuse_pickles(folder: Path) -> None:
    """Check that no file of a folder can run code when it is loaded: all that a base is asked.

    Its texts are its publisher's; a vocabulary may well hold what looks like a path.

    Raises:
        BadData: names the file.
    """
    for path in sorted(folder.iterdir()):
        with path.open("rb") as handle:
            _refuse_pickle(path, handle.read(len(max(_MAGIC, key=len))))


def _refuse_pickle(path: Path, content: bytes) -> None:
    if path.suffix in _PICKLED or content.startswith(_MAGIC):
        raise BadData(
            f"{path.parent.name}/{path.name} is a pickle or an archive, which can run code; "
            "ship safetensors"
        )


def _content(path: Path) -> bytes:
    if path.suffix == _WEIGHTS:
        with path.open("rb") as handle:
            size = int.from_bytes(handle.read(8), "little")
            return handle.read(min(size, path.stat().st_size))
    if path.suffix == _GGUF:
        with path.open("rb") as handle:
            return handle.read(4)
    return path.read_bytes()


def _quoted(content: bytes, said: Iterable[str]) -> Iterator[str]:
    """Yield the texts that `content` holds, as they are or as JSON writes them."""
    for one in said:
        escaped = json.dumps(one)[1:-1].encode("utf-8")
        readable = json.dumps(one, ensure_ascii=False)[1:-1].encode("utf-8")
        if any(form in content for form in (one.encode("utf-8"), escaped, readable)):
            yield one


def _shown(found: bytes) -> str:
    return found.decode("utf-8", "replace")
