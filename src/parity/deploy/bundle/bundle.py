"""The bundle: a flat folder for Kaggle, identified by its manifest.

It holds ids and digests only: the competition's text is already on Kaggle, under its own license.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parity.deploy.bundle import sealed_folder
from parity.deploy.bundle.sealed_folder import SealedFolder
from parity.run import files
from parity.run.config import run_file as configs
from parity.run.config.run_file import Config
from parity.run.errors import Mismatch
from parity.run.layers import PINNED, differences


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle.

    Attributes:
        folder: path of the bundle.
        run: name of the run.
        round: number of the round.
        config: resolved config of the adapter's training.
        layers: evidence layers of the trained adapter on the probe, and split, lineage, data,
            corpus and pool.
        digest: digest of all files.
        facts: further manifest fields: scores, digests of the locks, parallelism over GPUs.
    """

    folder: Path
    run: str
    round: int
    config: Config
    layers: dict[str, str]
    digest: str
    facts: dict[str, Any] = field(default_factory=dict)

    def check(self, layers: Mapping[str, str]) -> None:
        """Check that texts, tokens and weights are those the adapter was trained with.

        Raises:
            Mismatch: a layer differs; the message has the first one.
        """
        if unequal := differences(layers, self.layers, PINNED, with_unknown=True):
            name = unequal[0]
            actual, expected = layers.get(name, ""), self.layers.get(name, "")
            raise Mismatch(
                f"layer {name}: {actual[:12]} here, {expected[:12]} where the adapter of "
                f"{self.run} was trained; it is the first that differs"
            )


def seal(folder: Path, *, run: str, round_: int, layers: Mapping[str, str], **facts: Any) -> str:
    """Write the manifest of a complete bundle folder and return the bundle's digest.

    Args:
        folder: flat folder of the other files.
        run: name of the run.
        round_: number of the round.
        layers: evidence layers of the saved adapter on the probe, and its data layers.
        facts: further manifest fields, such as scores and the digests of the locks.

    Raises:
        BadData: the folder is not flat, or Kaggle would not keep a file name.
    """
    manifest_facts = {"run": run, "round": round_, "layers": dict(layers), **facts}
    return sealed_folder.seal(folder, "bundle", manifest_facts)


def read(folder: Path) -> Bundle:
    """Return the bundle in `folder` after verifying each file.

    Raises:
        Mismatch: a file is missing or is not the one the manifest names.
    """
    return _opened(sealed_folder.read(folder))


def _opened(sealed: SealedFolder) -> Bundle:
    folder = sealed.folder
    config = configs.build(files.read_json(folder / "run.json"), f"{folder.name}/run.json")
    facts = dict(sealed.facts)
    if missing := sorted({"run", "round", "layers"} - facts.keys()):
        raise Mismatch(f"bundle {folder.name}: its manifest has no {missing[0]}; package it again")
    run, round_, layers = facts.pop("run"), facts.pop("round"), facts.pop("layers")
    return Bundle(folder, run, round_, config, layers, sealed.digest, facts)
