"""Which stage needs which, and whether a stage's work is done, stale or missing.

A stage is stale when its files were changed, when what it was made from is no longer what is
there, or when the run file now says something else. Whoever needs it refuses and names the command.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from parity.competition.eedi.kaggle_files import MAPPING, SAMPLE, TEST, TRAIN
from parity.deploy.wheelhouse import wheel_lock
from parity.run import digest, ledger
from parity.run import manifest as manifests
from parity.run.config.run_file import ShippingConfig
from parity.run.errors import BadConfig, StaleInput
from parity.run.experiment import Run
from parity.run.ledger import Evidence
from parity.run.manifest import Manifest

STAGES = (
    *("prepare", "mine", "train", "eval", "predict", "package", "rehearse"),
    *("publish", "push", "follow", "submit", "reconcile"),
)
"""In order; all but the first belong to a round."""

_SECTIONS = {
    "prepare": ("data", "split"),
    "mine": ("prompt", "encoder", "mining"),
    "train": ("prompt", "encoder", "training", "scoring"),
    "eval": ("prompt", "encoder", "scoring"),
    "predict": ("prompt", "encoder"),
    "package": ("data", "prompt", "encoder", "shipping"),
    "rehearse": (),
    "publish": (),
    "push": (),
    "follow": (),
    "submit": (),
    "reconcile": (),
}
# Where a run reads and computes is no part of what it is: digests of data and layers judge that.
_FREE = {
    ("data", "source"),
    ("encoder", "device"),
    ("encoder", "token_budget"),
    ("training", "tracker"),
    *(("shipping", key) for key in ShippingConfig.model_fields if key != "wheels"),
}
_SPREAD = ("encoder", "parallelism")  # how the kernel runs: a bundle says so, an adapter does not
_KAGGLE = ("kernel", "public", "private")
_WAY = ("cv", "rehearsal", "image", *_KAGGLE)

State = Literal["done", "stale", "missing"]


@dataclass(frozen=True, slots=True)
class StageStatus:
    """Where a stage stands.

    Attributes:
        state: done, stale or missing.
        why: what makes it stale, in a few words; empty otherwise.
        manifest: what it wrote, where it finished.
    """

    state: State
    why: str = ""
    manifest: Manifest | None = None


def folder(run: Run, stage: str) -> Path:
    """Return the folder a stage of this round writes to; for `eval` that of the best adapter."""
    if stage == "prepare":
        return run.workspace.prepare
    if stage == "eval":
        return run.workspace.evaluation(run.round, "best")
    return run.workspace.stage(stage, run.round)


def rounds(run: Run) -> int:
    """Return how many rounds of the run have begun."""
    count = 0
    while run.workspace.stage("mine", count).is_dir():
        count += 1
    return count


def needs(run: Run, stage: str) -> list[tuple[str, Run]]:
    """Return the stages whose work `stage` reads, each with its round, in order."""
    before = [("train", run.at(run.round - 1))] if run.round else []
    wanted = {
        "prepare": [],
        "mine": [("prepare", run), *before],
        "train": [("prepare", run), ("mine", run), *before],
        "eval": [("prepare", run), ("train", run)],
        "predict": [("prepare", run), ("train", run)],
        "package": [("prepare", run), ("train", run), ("eval", run)],
        "rehearse": [("package", run), ("predict", run)],
        "publish": [("package", run), ("rehearse", run)],
        "push": [("package", run), ("publish", run)],
        "follow": [("package", run), ("push", run)],
        "submit": [("package", run), ("follow", run)],
        "reconcile": [("eval", run), ("rehearse", run)],
    }
    if run.config.split.kind == "full":  # nothing is held out, so nothing was scored
        wanted |= {"package": wanted["package"][:2]}
        wanted |= {"reconcile": [("rehearse", run), ("follow", run)]}
    return wanted[stage]


def config_of(run: Run, stage: str) -> dict[str, Any]:
    """Return the sections of the run file that a stage depends on, for its manifest."""
    return manifests.sections(run.config, _SECTIONS[stage])


class StageGraph:
    """Where the stages of one run stand; each is looked at once."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._known: dict[tuple[str, int], StageStatus] = {}

    def standing(self, run: Run, stage: str) -> StageStatus:
        """Return whether the stage's work is there and still what run file and inputs say."""
        key = (stage, run.round)
        if key not in self._known:
            self._known[key] = self._look(run, stage)
        return self._known[key]

    def require(self, run: Run, stage: str) -> dict[str, Manifest]:
        """Return what `stage` needs, by noun; each proven to be there and not stale.

        Raises:
            StaleInput: names the first stage to run again, why, and the command.
        """
        found = {}
        for name, where in needs(run, stage):
            self.require(where, name)  # what comes first in order is told first
            now = self.standing(where, name)
            label = label_of(name, where)
            if now.manifest is None or now.state != "done":
                why = f"is stale ({now.why})" if now.why else "has not been made"
                raise StaleInput(f"{label} {why}; run: {where.command(name)}")
            found[label] = now.manifest
        return found

    def compared(self, run: Run) -> dict[str, Evidence]:
        """Return the newest evidence of each step from CV to score, by kind, in their order.

        What Kaggle ran counts while `follow` is done, and a rehearsal in the image while no other
        has come after it: else it is of another bundle, as the stage's own state says.
        """
        all_ = ledger.read(run.workspace.ledger)
        mine = [one for one in all_ if (one.run, one.round) == (run.config.name, run.round)]
        newest: dict[str, Evidence] = {}
        for one in mine:
            if one.kind == "rehearsal":
                newest.pop("image", None)
            if one.kind != "cv" or one.label == "best":
                newest[one.kind] = one
        if self.standing(run, "follow").state != "done":
            newest = {kind: one for kind, one in newest.items() if kind not in _KAGGLE}
        return {kind: newest[kind] for kind in _WAY if kind in newest}

    def _look(self, run: Run, stage: str) -> StageStatus:
        place = folder(run, stage)
        found = manifests.read(place)
        if found is None:
            return StageStatus("missing")
        why = (
            _changed_config(run, stage, found)
            or self._changed_inputs(run, stage, found)
            or _changed_outputs(place, found)
        )
        return StageStatus("stale" if why else "done", why, found)

    def _changed_beside(self, run: Run, stage: str, found: Manifest) -> str:
        """Return what a stage reads that no stage has made, where it is another by now."""
        if stage == "package":
            now = locks(run)
            odd = sorted(name for name in now if found.inputs.get(name) != now[name])
            return f"{odd[0]} was made anew since" if odd else ""
        if stage == "reconcile":
            now = ids(self.compared(run))
            odd = [kind for kind in now if found.inputs.get(kind) != now[kind]]
            return f"evidence of {odd[-1]} has come since" if odd else ""
        return ""

    def _changed_inputs(self, run: Run, stage: str, found: Manifest) -> str:
        if stage == "prepare":
            now = raw_files(Path(run.config.data.source))
            odd = sorted(name for name in found.inputs if now.get(name) != found.inputs[name])
            return f"{odd[0]} is not the file it was made from" if odd else ""
        if beside := self._changed_beside(run, stage, found):
            return beside
        for name, where in needs(run, stage):
            below = self.standing(where, name)
            label = label_of(name, where)
            if below.manifest is None or below.state != "done":
                return f"{label} is {below.state}"
            if found.inputs.get(label) != below.manifest.digest():
                return f"{label} was made anew since"
        return ""


def inputs(found: dict[str, Manifest]) -> dict[str, str]:
    """Return the digests of what `require` found, for the manifest of what is made from it."""
    return {name: manifest.digest() for name, manifest in found.items()}


def ids(records: Mapping[str, Evidence]) -> dict[str, str]:
    """Return the ids of what `Survey.compared` found, for the manifest of the comparison."""
    return {kind: ledger.id_of(one) for kind, one in records.items()}


def raw_files(source: Path) -> dict[str, str]:
    """Return file name → sha256 of the competition's files, those that are there."""
    names = (MAPPING, SAMPLE, TEST, TRAIN)
    return {name: digest.of_file(source / name) for name in names if (source / name).is_file()}


def locks(run: Run) -> dict[str, str]:
    """Return name → sha256 of the locks of image and wheels, those that are there."""
    try:
        paths = (run.workspace.image_lock, run.workspace.wheelhouse / wheel_lock.NAME)
    except BadConfig:  # no checkout, so nothing is packed here either
        return {}
    return {path.name: digest.of_file(path) for path in paths if path.is_file()}


def label_of(stage: str, run: Run) -> str:
    """Return how a stage of a round is named in manifests and to a person."""
    return stage if stage == "prepare" else f"{stage} of round {run.round}"


def _changed_config(run: Run, stage: str, found: Manifest) -> str:
    now = config_of(run, stage)
    for section in _SECTIONS[stage]:
        before = found.config.get(section, {})
        for key, value in now[section].items():
            free = (section, key) in _FREE or ((section, key) == _SPREAD and stage != "package")
            if not free and before.get(key) != value:
                return f"{section}.{key} was {before.get(key)!r}, the run now says {value!r}"
    return ""


def _changed_outputs(place: Path, found: Manifest) -> str:
    for name, expected in sorted(found.outputs.items()):
        path = place / name
        if not path.is_file() or digest.of_file(path) != expected:
            return f"{name} is missing or was changed"
    return ""
