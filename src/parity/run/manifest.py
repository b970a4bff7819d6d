"""The manifest of a finished stage: inputs, outputs, config, environment. It is written last."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from parity.run import digest, environment, files
from parity.run.config.run_file import Config
from parity.run.errors import StaleInput

_FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """Outputs of a stage, and what it made them from.

    Attributes:
        stage: name of the stage.
        config: sections of the run file that the stage depends on.
        inputs: name of an input → its digest.
        outputs: file name (relative to the stage's folder) → sha256.
        facts: numbers and texts worth keeping, such as counts and the step plan.
        environment: `environment.describe()`; outside the digest.
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
        """Return the digest of stage, inputs and outputs.

        Timings, machine and config are left out: settings that matter change the outputs, and
        paths and devices do not matter.
        """
        return digest.of_value([self.stage, self.inputs, self.outputs])


def sections(config: Config, names: tuple[str, ...]) -> dict[str, Any]:
    """Return sections of a config as plain values, with the overrides of the command line."""
    plain = {name: getattr(config, name).model_dump(mode="json") for name in names}
    return {**plain, "overrides": list(config.overrides)}


def write(
    folder: Path,
    manifest: Manifest,
    names: list[str],
) -> Manifest:
    """Write the manifest of a stage into its folder, with the digests of its outputs `names`."""
    done = Manifest(
        stage=manifest.stage,
        config=manifest.config,
        inputs=manifest.inputs,
        outputs=digest.of_tree(folder, names),
        facts=manifest.facts,
        environment=environment.describe(),
        seconds=round(manifest.seconds, 3),
    )
    files.write_json(folder / _FILE, asdict(done))
    return done


def read(folder: Path) -> Manifest | None:
    """Return the manifest of the stage in `folder`, None if the stage has not finished."""
    path = folder / _FILE
    if not path.is_file():
        return None
    record = files.read_json(path)
    if not isinstance(record, dict) or record.keys() != set(Manifest.__dataclass_fields__):
        return None  # written by another version
    return Manifest(**record)


def require(folder: Path, fix: tuple[str, ...]) -> Manifest:
    """Return the manifest of a finished stage with unchanged outputs.

    Args:
        folder: folder of the stage.
        fix: command that runs the stage, for the error.

    Raises:
        StaleInput: the stage has not finished, or an output has changed since.
    """
    manifest = read(folder)
    if manifest is None:
        raise StaleInput(f"stage {folder.name} has not finished", fix=fix)
    for name, expected in manifest.outputs.items():
        path = folder / name
        if not path.is_file() or digest.of_file(path) != expected:
            raise StaleInput(f"{path} is missing or has changed since it was written", fix=fix)
    return manifest


def forget(folder: Path) -> None:
    """Remove the manifest before a stage runs again, so that partial outputs are never used."""
    (folder / _FILE).unlink(missing_ok=True)
