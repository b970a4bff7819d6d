"""A sealed folder: the flat contents of one Kaggle dataset, with the sha256 of each file.

Base, wheelhouse and bundle are sealed folders. The kernel finds them by their manifests at any
mount point. Equal files and facts give an equal digest on any machine and any day.
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

# Names that the Kaggle client skips silently; Kaggle unpacks the archives below.
_RESERVED = {
    *("dataset-metadata.json", "datapackage.json", "kernel-metadata.json"),
    *("model-metadata.json", "model-instance-metadata.json"),
}
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".gz", ".bz2", ".7z", ".rar")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*")


@dataclass(frozen=True, slots=True)
class SealedFolder:
    """A sealed folder whose files were all verified.

    Attributes:
        kind: base, wheelhouse or bundle.
        folder: path.
        files: file name → sha256, without the manifest.
        facts: further values of its manifest.
        digest: sha256 of kind, schema, files and facts.
    """

    kind: Kind
    folder: Path
    files: dict[str, str]
    facts: dict[str, Any]
    digest: str

    def sizes(self) -> dict[str, int]:
        """Return file name → bytes, including the manifest, as a dataset must list them."""
        names = [*self.files, MANIFEST]
        return {name: (self.folder / name).stat().st_size for name in sorted(names)}


def seal(folder: Path, kind: Kind, facts: Mapping[str, Any]) -> str:
    """Write the manifest of a folder that holds all its other files; return the digest.

    Raises:
        BadData: the folder is not flat, or Kaggle would change a file or its name.
    """
    names = sorted({path.name for path in folder.iterdir()} - {MANIFEST})
    for name in names:
        _refuse(folder / name, kind)
    record = _record(kind, facts, digest.of_tree(folder, names))
    sealed = digest.of_value(record)
    files.write_json(folder / MANIFEST, {**record, "digest": sealed})
    return sealed


def compute_digest(kind: Kind, facts: Mapping[str, Any], contents: Mapping[str, str]) -> str:
    """Return the digest that `seal` gives to files, named with their sha256."""
    return digest.of_value(_record(kind, facts, contents))


def read(folder: Path) -> SealedFolder:
    """Return the sealed folder after verifying each file.

    Raises:
        Mismatch: a file is missing or differs from its sha256, or the manifest was changed or has
            another schema.
    """
    record = files.read_json(folder / MANIFEST)
    if not _is_sealed(record):
        raise Mismatch(
            f"{folder.name}: {MANIFEST} is not the manifest of a base, wheelhouse or bundle"
        )
    sealed = record.pop("digest", "")
    if digest.of_value(record) != sealed:
        raise Mismatch(f"{folder.name}: {MANIFEST} was changed after it was sealed")
    if (schema := record["schema"]) != SCHEMA:
        raise Mismatch(
            f"{folder.name}: {MANIFEST} has schema {schema}; this version reads {SCHEMA}"
        )
    kind, contents = record["kind"], record["files"]
    for name, expected in sorted(contents.items()):
        if not (folder / name).is_file() or digest.of_file(folder / name) != expected:
            raise Mismatch(f"{kind} {folder.name}: {name} is not the file its manifest names")
    return SealedFolder(kind, folder, contents, record["facts"], sealed)


def link_files(paths: Iterable[Path], folder: Path) -> None:
    """Link files into a new folder, or copy them if the disk cannot, to save copies of weights."""
    folder.mkdir(parents=True)
    for path in paths:
        files.link(path, folder / path.name)


def _record(kind: Kind, facts: Mapping[str, Any], contents: Mapping[str, str]) -> dict[str, Any]:
    return {"kind": kind, "schema": SCHEMA, "facts": dict(facts), "files": dict(contents)}


def _refuse(path: Path, kind: Kind) -> None:
    """Refuse a file that Kaggle would drop, rename or unpack."""
    name = path.name
    if path.is_dir():
        raise BadData(f"a {kind} is flat, and the Kaggle client would skip its folder {name}")
    if name in _RESERVED or name.startswith("dataset-cover-image."):
        raise BadData(f"{kind}: the Kaggle client skips {name}. Rename it")
    if name.lower().endswith(_ARCHIVES):
        raise BadData(f"{kind}: Kaggle would unpack {name}. Ship its files")
    if not _NAME.fullmatch(name):
        raise BadData(f"{kind}: Kaggle would rename {name!r}. Use letters, digits, . _ - =")
    if path.stat().st_size == 0:
        raise BadData(f"{kind}: {name} is empty, and Kaggle may drop an empty file")


def _is_sealed(record: Any) -> bool:
    keys = {"kind", "schema", "facts", "files"}
    return isinstance(record, dict) and keys <= record.keys() and record["kind"] in get_args(Kind)
