"""What a base model's folder says about how it embeds texts: pooling, prompts, further layers.

Sentence-transformers writes `modules.json` with a folder for each step after the transformer, and
`config_sentence_transformers.json` with prompts. The run file decides; where it decides otherwise,
the difference is reported, and a step that cannot be run is refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.run import files
from parity.run.config.prompt import PromptConfig
from parity.run.errors import BadConfig

_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of a pooling's config before version 6 of sentence-transformers, which has one key."""
_RUN = ("Transformer", "Pooling", "Normalize")
"""Steps that every encoder runs; embeddings are always normalized."""
_QUERY, _PASSAGE = ("query",), ("document", "passage", "corpus")


@dataclass(frozen=True, slots=True)
class Conventions:
    """What the folder of a base model says.

    Attributes:
        pooling: `last`, `mean` or `cls`; empty if it does not say.
        other_steps: names of steps after the transformer that are not run, such as `2_Dense`.
        query: text in front of a query; empty if it does not say.
        passage: text in front of a passage; empty if it does not say.
    """

    pooling: str = ""
    other_steps: tuple[str, ...] = ()
    query: str = ""
    passage: str = ""


def read_conventions(folder: Path) -> Conventions:
    """Return what the folder of a base model says; nothing without the files."""
    steps = _read(folder / "modules.json", [])
    kinds = {step.get("path", ""): step.get("type", "").rpartition(".")[2] for step in steps}
    pooling = ""
    for path, kind in kinds.items():
        if kind == "Pooling":
            pooling = _pooling(_read(folder / path / "config.json", {}))
    prompts = _read(folder / "config_sentence_transformers.json", {}).get("prompts") or {}
    return Conventions(
        pooling,
        tuple(path or kind for path, kind in kinds.items() if kind not in _RUN),
        _first(prompts, _QUERY),
        _first(prompts, _PASSAGE),
    )


def check_steps(folder: Path, base: str, *, is_causal: bool) -> None:
    """Check that the base model runs as its folder says.

    Args:
        folder: folder of the base model.
        base: its name, for the message.
        is_causal: whether the loaded model was measured to be causal.

    Raises:
        BadConfig: the model has a step after pooling that is not run, such as a dense layer, or
            its config asks for attention in both directions, which transformers ignores.
    """
    conventions = read_conventions(folder)
    if is_causal and _read(folder / "config.json", {}).get("is_causal") is False:
        raise BadConfig(
            f"base model {base} is trained with attention in both directions (is_causal = false), "
            "but transformers runs it as causal. Use a model whose class supports it"
        )
    if conventions.other_steps:
        names = ", ".join(conventions.other_steps)
        raise BadConfig(
            f"base model {base} has steps after pooling that are not run ({names}). Use a model "
            "without them, or remove them from its modules.json to embed without them"
        )


def notes(conventions: Conventions, pooling: str, prompt: PromptConfig) -> Iterator[str]:
    """Yield where the run file decides otherwise than the folder says, one line each.

    Args:
        conventions: what the folder says.
        pooling: `encoder.pooling` of the run file.
        prompt: prompt of the run file.
    """
    if conventions.pooling not in ("", pooling):
        yield (
            f"the base model was trained with {conventions.pooling} pooling; the run file has "
            f"encoder.pooling = {pooling!r}"
        )
    parts = (
        ("query", conventions.query, f"{prompt.instruction}{prompt.query}"),
        ("passage", conventions.passage, prompt.passage),
    )
    for name, expected, template in parts:
        if expected.strip() and expected.strip() not in template:
            yield (
                f"the base model was trained with {expected!r} in front of a {name}; "
                f"prompt.{name} of the run file does not have it"
            )


def _pooling(config: dict[str, Any]) -> str:
    """Return the pooling of a config in this project's words; several are joined by a comma."""
    modes = config.get("pooling_mode") or [n for key, n in _SWITCHES.items() if config.get(key)]
    names = [modes] if isinstance(modes, str) else modes
    return ",".join("last" if name == "lasttoken" else str(name) for name in names)


def _first(prompts: dict[str, str], names: tuple[str, ...]) -> str:
    return next((prompts[name] for name in names if prompts.get(name)), "")


def _read(path: Path, default: Any) -> Any:
    return files.read_json(path) if path.is_file() else default
