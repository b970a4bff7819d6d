"""The bundle: the flat folder that goes to Kaggle, found by its manifest wherever it is mounted.

Ids and digests only: the competition's text is on Kaggle already, under its own license.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parity.competition.eedi.kaggle_files import MAPPING, SAMPLE, TEST, TRAIN
from parity.deploy.bundle import sealed_folder
from parity.deploy.bundle.sealed_folder import Sealed
from parity.run import files
from parity.run.config import run_file as configs
from parity.run.config.run_file import Config
from parity.run.errors import BadData, Mismatch

PINNED = ("corpus", "examples", "template", "texts", "tokens", "pool", "base", "adapter")
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


def seal(folder: Path, *, run: str, round_: int, layers: Mapping[str, str], **facts: Any) -> str:
    """Write the manifest of a bundle whose other files are there; return the bundle's digest.

    Args:
        folder: flat.
        run: the run's name.
        round_: its round.
        layers: what the adapter showed on the probe when it was saved, and its data layers.
        facts: what else its manifest is to say, such as scores and the digests of the locks.

    Raises:
        BadData: the folder is not flat, or a name in it would not reach Kaggle.
    """
    told = {"run": run, "round": round_, "layers": dict(layers), **facts}
    return sealed_folder.seal(folder, "bundle", told)


def read(folder: Path) -> Bundle:
    """Return the bundle in `folder`, every file of it proven.

    Raises:
        Mismatch: a file is missing or is not the one the manifest names.
    """
    return _opened(sealed_folder.read(folder))


def _opened(found: Sealed) -> Bundle:
    place = found.folder
    config = configs.build(files.read_json(place / "run.json"), f"{place.name}/run.json")
    facts = dict(found.facts)
    if missing := sorted({"run", "round", "layers"} - facts.keys()):
        raise Mismatch(f"bundle {place.name}: its manifest names no {missing[0]}; pack it anew")
    run, round_, layers = facts.pop("run"), facts.pop("round"), facts.pop("layers")
    return Bundle(place, run, round_, config, layers, found.digest, facts)


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
