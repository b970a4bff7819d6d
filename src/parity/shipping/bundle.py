"""The bundle: the flat folder that goes to Kaggle, found by its manifest wherever it is mounted.

Ids and digests only: the competition's text is on Kaggle already, under its own licence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.competition.tables import MAPPING, SAMPLE, TEST, TRAIN
from parity.run import config as configs
from parity.run import digest, files
from parity.run.config import Config
from parity.run.errors import BadData, Mismatch

MANIFEST = "manifest.json"
SCHEMA = 1
PINNED = ("corpus", "exemplars", "template", "texts", "tokens", "pool", "base", "adapter")
"""Layers that must be the same in every environment, in causal order; later ones may differ by
hardware. `corpus` and `pool` are no layers of evidence: there the digest of all files stands for
them."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was found and proven whole.

    Attributes:
        folder: where it lies.
        run: the run's name.
        round: its round.
        config: the resolved config, frozen when the adapter was trained.
        layers: what the trained adapter showed on the probe, and split, lineage, data, corpus
            and pool.
        digest: of all its files.
    """

    folder: Path
    run: str
    round: int
    config: Config
    layers: dict[str, str]
    digest: str

    def check(self, layers: Mapping[str, str]) -> None:
        """Check that texts, tokens and weights here are those the adapter was trained with.

        Raises:
            Mismatch: names the first layer that differs.
        """
        for name in PINNED:
            here, there = layers.get(name, ""), self.layers.get(name, "")
            if here != there:
                raise Mismatch(
                    f"layer {name}: {here[:12]} here, {there[:12]} where the adapter of {self.run} "
                    "was trained; it is the first that differs"
                )


def seal(folder: Path, *, run: str, round_: int, layers: Mapping[str, str]) -> str:
    """Write the manifest of a bundle whose other files are there; return the bundle's digest.

    Raises:
        BadData: the folder is not flat.
    """
    if deep := sorted(path.name for path in folder.iterdir() if path.is_dir()):
        raise BadData(f"a bundle is flat; {deep[0]} is a folder")
    names = {path.name for path in folder.iterdir()} - {MANIFEST}
    record = {
        "kind": "bundle",
        "schema": SCHEMA,
        "run": run,
        "round": round_,
        "layers": dict(layers),
        "files": digest.of_tree(folder, names),
    }
    files.write_json(folder / MANIFEST, {**record, "digest": digest.of_value(record)})
    return digest.of_value(record)


def find(root: Path) -> Bundle:
    """Return the one bundle anywhere under `root`, every file of it proven.

    Raises:
        Mismatch: there is none, or more than one, or a file is not the one its manifest names.
    """
    found = [path for path in sorted(root.rglob(MANIFEST)) if _is_bundle(path)]
    if not found:
        for path in sorted(root.rglob(MANIFEST)):
            files.read_json(path)  # one that is broken may have been it
    if len(found) != 1:
        there = ", ".join(str(path.parent.relative_to(root)) for path in found) or "none"
        raise Mismatch(f"want one bundle under {root.name}/, found: {there}; attach one dataset")
    return read(found[0].parent)


def read(folder: Path) -> Bundle:
    """Return the bundle in `folder`, every file of it proven.

    Raises:
        Mismatch: a file is missing or is not the one the manifest names.
    """
    record = files.read_json(folder / MANIFEST)
    sealed = record.pop("digest", "")
    if digest.of_value(record) != sealed:
        raise Mismatch(f"bundle {folder.name}: {MANIFEST} was changed after it was sealed")
    for name, expected in sorted(record["files"].items()):
        if not (folder / name).is_file() or digest.of_file(folder / name) != expected:
            raise Mismatch(f"bundle {folder.name}: {name} is not the file its manifest names")
    config = configs.build(files.read_json(folder / "run.json"), f"{folder.name}/run.json")
    return Bundle(folder, record["run"], record["round"], config, record["layers"], sealed)


def competition(root: Path) -> Path:
    """Return the folder under `root` that holds the competition's four files.

    Raises:
        BadData: there is none, or more than one.
    """
    wanted = (MAPPING, SAMPLE, TEST, TRAIN)
    found = [
        path.parent
        for path in sorted(root.rglob(SAMPLE))
        if all((path.parent / name).is_file() for name in wanted)
    ]
    if len(found) != 1:
        raise BadData(
            f"want the competition's files once under {root.name}/, found them {len(found)} "
            "times; attach the competition itself"
        )
    return found[0]


def _is_bundle(path: Path) -> bool:
    try:
        record: Any = files.read_json(path)
    except BadData:
        return False  # some other dataset's file of that name
    return isinstance(record, dict) and record.get("kind") == "bundle"
