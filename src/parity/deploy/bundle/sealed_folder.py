"""A sealed folder: what one Kaggle dataset holds, flat, with the sha256 of every file and its own.

Base, wheelhouse and bundle are each one; the kernel finds them by their manifests, wherever they
are mounted. Equal files and facts give an equal digest on any machine and any day.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from parity.run import digest, files
from parity.run.errors import BadData, Mismatch

MANIFEST = "manifest.json"
SCHEMA = 1
Kind = Literal["base", "wheelhouse", "bundle"]

# What the Kaggle client leaves out without a word, or Kaggle unpacks.
_RESERVED = {
    *("dataset-metadata.json", "datapackage.json", "kernel-metadata.json"),
    *("model-metadata.json", "model-instance-metadata.json"),
}
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".gz", ".bz2", ".7z", ".rar")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*")


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed folder that was found and proven whole.

    Attributes:
        kind: which of the three it is.
        folder: where it lies.
        files: file name → sha256, the manifest itself not among them.
        facts: what else its manifest says.
        digest: of kind, files and facts.
    """

    kind: Kind
    folder: Path
    files: dict[str, str]
    facts: dict[str, Any]
    digest: str

    def sizes(self) -> dict[str, int]:
        """Return file name → bytes, the manifest among them: what a dataset has to list."""
        names = [*self.files, MANIFEST]
        return {name: (self.folder / name).stat().st_size for name in sorted(names)}


def seal(folder: Path, kind: Kind, facts: Mapping[str, Any]) -> str:
    """Write the manifest of a folder whose other files are there; return the digest.

    Raises:
        BadData: it is not flat, or a name or an empty file would not reach Kaggle as it is.
    """
    names = sorted({path.name for path in folder.iterdir()} - {MANIFEST})
    for name in names:
        _refuse(folder / name, kind)
    record = _record(kind, facts, digest.of_tree(folder, names))
    sealed = digest.of_value(record)
    files.write_json(folder / MANIFEST, {**record, "digest": sealed})
    return sealed


def digest_of(kind: Kind, facts: Mapping[str, Any], contents: Mapping[str, str]) -> str:
    """Return the digest that `seal` would give files of these sha256, by name."""
    return digest.of_value(_record(kind, facts, contents))


def read(folder: Path) -> Sealed:
    """Return the sealed folder, every file of it proven.

    Raises:
        Mismatch: a file is missing or is not the one the manifest names, or the manifest was
            changed or is of another schema.
    """
    record = files.read_json(folder / MANIFEST)
    if not _is_sealed(record):
        raise Mismatch(f"{folder.name}: {MANIFEST} is no manifest of a base, wheelhouse or bundle")
    sealed = record.pop("digest", "")
    if digest.of_value(record) != sealed:
        raise Mismatch(f"{folder.name}: {MANIFEST} was changed after it was sealed")
    if (schema := record["schema"]) != SCHEMA:
        raise Mismatch(
            f"{folder.name}: {MANIFEST} is of schema {schema}; this version reads {SCHEMA}"
        )
    kind, contents = record["kind"], record["files"]
    for name, expected in sorted(contents.items()):
        if not (folder / name).is_file() or digest.of_file(folder / name) != expected:
            raise Mismatch(f"{kind} {folder.name}: {name} is not the file its manifest names")
    return Sealed(kind, folder, contents, record["facts"], sealed)


def link(names: Iterable[Path], folder: Path) -> None:
    """Make `folder` hold these files, linked where the disk can, so that weights are not copied."""
    folder.mkdir(parents=True)
    for path in names:
        files.link(path, folder / path.name)


def _record(kind: Kind, facts: Mapping[str, Any], contents: Mapping[str, str]) -> dict[str, Any]:
    return {"kind": kind, "schema": SCHEMA, "facts": dict(facts), "files": dict(contents)}


def _refuse(path: Path, kind: Kind) -> None:
    """Refuse what would be missing, renamed or unpacked on Kaggle."""
    name = path.name
    if path.is_dir():
        raise BadData(f"a {kind} is flat; {name} is a folder, which the client would leave out")
    if name in _RESERVED or name.startswith("dataset-cover-image."):
        raise BadData(f"{kind}: {name} is a name that the Kaggle client leaves out; rename it")
    if name.lower().endswith(_ARCHIVES):
        raise BadData(f"{kind}: {name} is an archive, which Kaggle would unpack; ship its files")
    if not _NAME.fullmatch(name):
        raise BadData(
            f"{kind}: {name!r} would not keep its name on Kaggle; use letters, digits, . _ - ="
        )
    if path.stat().st_size == 0:
        raise BadData(f"{kind}: {name} is empty, and an empty file may be lost on the way")


def _is_sealed(record: Any) -> bool:
    keys = {"kind", "schema", "facts", "files"}
    return isinstance(record, dict) and keys <= record.keys() and record["kind"] in get_args(Kind)
