"""A finished stage's record: inputs, outputs, config, environment. Written last, or not at all."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from parity.run import digest, environment, files
from parity.run.config.run_file import Config
from parity.run.errors import StaleInput

_FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one stage made, and of what.

    Attributes:
        stage: the stage's name.
        config: the resolved sections the stage depends on.
        inputs: noun → digest of what was read.
        outputs: file name (relative to the stage's folder) → sha256.
        facts: numbers and texts worth keeping, such as counts and the step plan.
        environment: `environment.found()`; outside the digest.
        seconds: wall time; outside the digest.
    """

    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def digest(self) -> str:
        """Return the digest of what was made and of what; timings and machine stay out.

        So does the config: what of it matters shows in the outputs, and where files lie or on
        which device they were made does not.
        """
        return digest.of_value([self.stage, self.inputs, self.outputs])


def sections(config: Config, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the named sections as plain values, with the overrides that were given."""
    plain = {name: getattr(config, name).model_dump(mode="json") for name in names}
    return {**plain, "overrides": list(config.overrides)}


def write(
    folder: Path,
    manifest: Manifest,
    names: list[str],
) -> Manifest:
    """Digest the outputs `names` in `folder` and write the manifest beside them."""
    done = Manifest(
        stage=manifest.stage,
        config=manifest.config,
        inputs=manifest.inputs,
        outputs=digest.of_tree(folder, names),
        facts=manifest.facts,
        environment=environment.found(),
        seconds=round(manifest.seconds, 3),
    )
    files.write_json(folder / _FILE, asdict(done))
    return done


def read(folder: Path) -> Manifest | None:
    """Return the manifest of the stage in `folder`, or None where it has not finished."""
    path = folder / _FILE
    if not path.is_file():
        return None
    record = files.read_json(path)
    if not isinstance(record, dict) or record.keys() != set(Manifest.__dataclass_fields__):
        return None  # of another version: what it says cannot be trusted
    return Manifest(**record)


def require(folder: Path, command: str) -> Manifest:
    """Return the manifest of a finished stage whose outputs are still what it wrote.

    Raises:
        StaleInput: the stage has not finished, or an output was changed since; names `command`.
    """
    manifest = read(folder)
    if manifest is None:
        raise StaleInput(f"{folder.name} has not been made; run: {command}")
    for name, expected in manifest.outputs.items():
        path = folder / name
        if not path.is_file() or digest.of_file(path) != expected:
            raise StaleInput(f"{path}: missing or changed since it was made; run: {command}")
    return manifest


def forget(folder: Path) -> None:
    """Remove the manifest before a stage writes anew, so that half a result is never trusted."""
    (folder / _FILE).unlink(missing_ok=True)
