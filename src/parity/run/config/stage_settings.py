"""Settings as one stage uses them: mining, training and an evaluation may differ from the run file.

`[mining]` and `[training]` can choose other few-shot examples than `[prompt]`, mining another
quantization than `[encoder]`, and an evaluation any setting of `evaluation.SECTIONS`.
"""

import json
import re
from typing import Any

from pydantic import ValidationError

from parity.run import digest
from parity.run.config.evaluation import SECTIONS
from parity.run.config.prompt import PromptConfig
from parity.run.config.run_file import Config
from parity.run.config.section import Section
from parity.run.config.shipping import ShippingConfig
from parity.run.errors import BadConfig

NEUTRAL = frozenset(
    {
        "data.source",
        "encoder.device",
        "encoder.token_budget",
        "training.tracker",
        "training.checkpoint_every",
        *(f"shipping.{key}" for key in ShippingConfig.model_fields if key != "wheels"),
    }
)
"""Keys that say where a run reads and computes; digests of data and layers show what matters."""
PARALLELISM = "encoder.parallelism"
"""Key that says how the kernel runs: it decides the bundle, and no score."""
_DIGITS = 8  # of the digest that names settings without a name


def mining_config(config: Config) -> Config:
    """Return the config as mining uses it: its own examples and quantization."""
    quantize = config.mining.quantize or config.encoder.quantize
    encoder = config.encoder.model_copy(update={"quantize": quantize})
    prompt = _with_examples(config.prompt, config.mining.examples, "mining")
    return config.model_copy(update={"encoder": encoder, "prompt": prompt})


def training_config(config: Config) -> Config:
    """Return the config as training uses it: its own examples."""
    prompt = _with_examples(config.prompt, config.training.examples, "training")
    return config.model_copy(update={"prompt": prompt})


def evaluation_config(config: Config, name: str) -> Config:
    """Return the config with the settings of the evaluation `name` of the run file.

    Raises:
        BadConfig: the run file has no such evaluation, or a key or a value of it is wrong.
    """
    if name not in config.evaluations:
        names = ", ".join(sorted(config.evaluations)) or "none"
        raise BadConfig(
            f"no evaluation {name!r} in the run file (it has: {names}). Add [evaluations.{name}]"
        )
    sections = config.evaluations[name].root
    return config.model_copy(
        update={key: _overlaid(config, key, values, name) for key, values in sections.items()}
    )


def check_evaluations(config: Config) -> None:
    """Check the names, keys and values of all evaluations of a run file.

    Raises:
        BadConfig: one of them is wrong.
    """
    for name in config.evaluations:
        if re.fullmatch(r"[A-Za-z][\w.-]*", name) is None:
            raise BadConfig(
                f"evaluations.{json.dumps(name)}: a name has letters, digits, '.', '_' and '-', a "
                "letter first"
            )
        scored = evaluation_config(config, name).encoder
        if (scored.base, scored.revision) != (config.encoder.base, config.encoder.revision):
            raise BadConfig(
                f"evaluations.{name}.encoder.base: an evaluation scores the models of the run. "
                "Write another run file for another base model"
            )
    mining_config(config)
    training_config(config)


def evaluation_settings(config: Config) -> dict[str, Any]:
    """Return `section.key` → value of the settings that decide a score, neutral ones left out."""
    return {
        f"{section}.{key}": value
        for section in SECTIONS
        for key, value in getattr(config, section).model_dump(mode="json").items()
        if f"{section}.{key}" not in NEUTRAL | {PARALLELISM}
    }


def settings_digest(config: Config) -> str:
    """Return the digest of `evaluation_settings`."""
    return digest.of_value(evaluation_settings(config))


def settings_name(config: Config) -> str:
    """Return the name of an evaluation without one: the first digits of its settings' digest."""
    return settings_digest(config)[:_DIGITS]


def _overlaid(config: Config, section: str, values: dict[str, Any], name: str) -> Section:
    if section not in SECTIONS:
        raise BadConfig(
            f"evaluations.{name}.{section}: an evaluation changes {', '.join(SECTIONS)}; other "
            "sections decide how a model is made"
        )
    before: Section = getattr(config, section)
    merged = {**before.model_dump(mode="json", exclude_defaults=True), **values}
    try:
        return type(before).model_validate_json(digest.canonical(merged))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["evaluations", name, section, *map(str, first["loc"])])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "unknown key"
        raise BadConfig(f"{key}: {message}") from error


def _with_examples(prompt: PromptConfig, examples: str, section: str) -> PromptConfig:
    """Return a prompt with a stage's own choice of few-shot examples; empty keeps the run's."""
    if not examples or examples == prompt.examples:
        return prompt
    if examples == "none":
        return prompt.model_copy(update={"examples": "none", "example_count": 0})
    if not prompt.example_count:
        raise BadConfig(
            f"{section}.examples = {examples!r} needs prompt.example_count. Set prompt.examples "
            "and prompt.example_count, and an evaluation with prompt.examples = 'none'"
        )
    return prompt.model_copy(update={"examples": examples})
