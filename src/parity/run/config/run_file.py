"""A run file: one experiment as TOML. Unknown keys are errors, every override is recorded.

Values keep their TOML type: `"false"` is a string and is refused where a boolean is expected.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from parity.run import digest
from parity.run.config.competition import CompetitionConfig
from parity.run.config.data import DataConfig
from parity.run.config.encoder import EncoderConfig
from parity.run.config.evaluation import EvaluationConfig
from parity.run.config.forecast import ForecastConfig
from parity.run.config.mining import MiningConfig
from parity.run.config.prompt import PromptConfig
from parity.run.config.scoring import ScoringConfig
from parity.run.config.section import Section
from parity.run.config.shipping import ShippingConfig
from parity.run.config.split import SplitConfig
from parity.run.config.training import TrainingConfig
from parity.run.errors import BadConfig

_UNSECTIONED = {"name", "overrides", "evaluations"}


class Config(Section):
    """An experiment; `name` is the stem of the run file."""

    name: str
    data: DataConfig = DataConfig()
    competition: CompetitionConfig = CompetitionConfig()
    split: SplitConfig = SplitConfig()
    prompt: PromptConfig = PromptConfig()
    encoder: EncoderConfig = EncoderConfig()
    mining: MiningConfig = MiningConfig()
    training: TrainingConfig = TrainingConfig()
    scoring: ScoringConfig = ScoringConfig()
    shipping: ShippingConfig = ShippingConfig()
    forecast: ForecastConfig = ForecastConfig()
    evaluations: dict[str, EvaluationConfig] = Field(default_factory=dict)
    """Further settings to score models under, by name; see `evaluation.py`."""
    overrides: tuple[str, ...] = ()
    """`section.key=value` overrides of the command line, in order."""

    def digest(self, *sections: str) -> str:
        """Return the digest of some sections, or of all that the run's own stages use."""
        names = sections or tuple(sorted(set(type(self).model_fields) - _UNSECTIONED))
        return digest.of_value(
            {name: getattr(self, name).model_dump(mode="json") for name in names}
        )


def load(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """Read a run file and apply `section.key=value` overrides.

    Raises:
        BadConfig: the file does not exist or is not TOML, or a key or a value is wrong.
    """
    if not path.is_file():
        names = ", ".join(sorted(str(file) for file in path.parent.glob("*.toml"))) or "none"
        raise BadConfig(f"{path}: no such run file (in its folder: {names})")
    try:
        tree: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: not TOML ({error})") from error
    for override in overrides:
        _apply(tree, override)
    if "name" in tree or "overrides" in tree:
        raise BadConfig(f"{path}: `name` and `overrides` are not keys; the file name is the name")
    return build({**tree, "name": path.stem, "overrides": list(overrides)}, str(path))


def build(tree: dict[str, Any], origin: str) -> Config:
    """Validate plain values as a `Config`; `origin` names them in errors.

    Raises:
        BadConfig: a key or a value is wrong.
    """
    try:
        return Config.model_validate_json(_json(tree, origin))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "unknown key"
        raise BadConfig(f"{origin}: {key}: {message}") from error


def _json(tree: dict[str, Any], origin: str) -> str:
    for key, value in _leaves(tree):
        try:
            digest.canonical(value)
        except (TypeError, ValueError) as error:  # a date, inf, nan
            raise BadConfig(f"{origin}: {key}: {error}") from error
    return digest.canonical(tree)


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield full key and value of everything in a tree that is not a section."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or len(parts) != 2 or not all(parts):
        raise BadConfig(f"--set {override}: expected section.key=value, such as training.epochs=3")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text  # an unquoted string
    section = tree.setdefault(parts[0], {})
    if not isinstance(section, dict):
        raise BadConfig(f"--set {override}: {parts[0]} is not a section")
    section[parts[1]] = value
