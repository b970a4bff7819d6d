"""The longest text that a base model has positions for, read without its weights.

Models with a table of learned positions fail, or silently read beyond it, when a text is longer.
Rotary and relative positions have no such table.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parity.retrieval.models import shape
from parity.run.errors import BadConfig

_TABLE = re.compile(r"(?:^|\.)(?:position_embeddings?|embed_positions|wpe)\.weight$")
# RoBERTa and its relatives count positions from the padding token's id plus one, OPT from two.
_FROM_PADDING = (
    *("camembert", "data2vec-text", "ibert", "longformer", "mpnet", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
)
_FROM_TWO = ("opt", "biogpt", "bart", "mbart")


def longest_text(folder: Path, config: Mapping[str, Any]) -> int | None:
    """Return the most tokens that a text may have; None if the model has no table of positions.

    Args:
        folder: folder of the base model.
        config: its config.json.
    """
    rows = [
        tensor.shape[0]
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in shape.read_header(path).items()
        if _TABLE.search(name) and len(tensor.shape) == 2
    ]
    if not rows:
        return None
    return min(rows) - _offset(config)


def check_length(limit: int | None, tokens: int, key: str, base: str) -> None:
    """Check that a prompt's maximum length fits the base model.

    Args:
        limit: what `longest_text` returned.
        tokens: maximum length in the run file.
        key: its key, for the message.
        base: name of the base model.

    Raises:
        BadConfig: texts could have more tokens than the model has positions.
    """
    if limit is not None and tokens > limit:
        raise BadConfig(
            f"prompt.{key} = {tokens}: base model {base} has positions for {limit} tokens. "
            f"Set prompt.{key} to {limit} or less"
        )


def _offset(config: Mapping[str, Any]) -> int:
    """Return how many rows of the table no token uses."""
    kind = config.get("model_type", "")
    if kind in _FROM_PADDING:
        padding = config.get("pad_token_id")
        return (1 if padding is None else int(padding)) + 1
    return 2 if kind in _FROM_TWO else 0
