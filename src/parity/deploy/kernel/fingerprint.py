"""Facts of an evidence record: what its digests are made of, the same wherever a model runs.

Digests, ids, versions and lengths only, because the ledger must not hold text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.competition.corpus import Corpus
from parity.competition.few_shot import Example
from parity.competition.query import QueryId
from parity.run import digest, environment
from parity.run.config.prompt import PromptConfig
from parity.run.layers import BY_NAME

_SHORT = 16  # hex digits; enough to distinguish 64 rows
_TEXTS = ("format", "instruction", "query", "passage")
_PLAIN = tuple(
    key for layer in ("template", "examples") for key in BY_NAME[layer].keys if key not in _TEXTS
)
_RAN = ("budget", "processes", "precision")


@dataclass(frozen=True, slots=True)
class ProbeTexts:
    """Texts, tokens and embeddings of the n probe rows for one encoder.

    Attributes:
        query_ids: ids of the n rows, in order.
        texts: n prompts.
        tokens: n lists of token ids.
        shown: few-shot examples by query id.
        vectors: embeddings of the prompts, (n, d) float32.
        passages: embeddings of the corpus in its order, (m, d) float32.
    """

    query_ids: Sequence[QueryId]
    texts: Sequence[str]
    tokens: Sequence[Sequence[int]]
    shown: Mapping[QueryId, Sequence[Example]]
    vectors: NDArray[np.float32]
    passages: NDArray[np.float32]


def environment_fingerprint(
    prompt: PromptConfig,
    corpus: Corpus,
    probed: ProbeTexts,
    speed: Mapping[str, Any],
    budget: int,
) -> dict[str, Any]:
    """Return the facts of an evidence record as plain values without text.

    Args:
        prompt: templates and lengths; templates are recorded by digest.
        corpus: passages, recorded by digest.
        probed: texts, tokens and embeddings of the probe.
        speed: speed facts of the encoder; seconds are not recorded.
        budget: tokens per pack in the run file, for embeddings cached on disk.
    """
    ran = {name: speed[name] for name in _RAN if name in speed}
    return {
        "environment": environment.describe(),
        "ran": {**ran, "budget": ran.get("budget") or budget},
        "prompt": {
            **{name: digest.of_text(getattr(prompt, name))[:_SHORT] for name in _TEXTS},
            **{name: getattr(prompt, name) for name in _PLAIN},
        },
        "corpus": corpus.digest(),
        "probe": _rows(probed),
        "vectors": {
            "queries": digest.of_bytes(probed.vectors.tobytes()),
            "passages": digest.of_bytes(probed.passages.tobytes()),
        },
    }


def text_mark(text: str) -> str:
    """Return the short digest of one prompt."""
    return digest.of_text(text)[:_SHORT]


def tokens_mark(ids: Sequence[int]) -> str:
    """Return the short digest of one list of token ids."""
    return digest.of_value(list(ids))[:_SHORT]


def _rows(probed: ProbeTexts) -> list[dict[str, Any]]:
    rows = zip(probed.query_ids, probed.texts, probed.tokens, strict=True)
    return [
        {
            "query_id": query_id,
            "text": text_mark(text),
            "tokens": tokens_mark(ids),
            "length": len(ids),
            "examples": [example.query.query_id for example in probed.shown.get(query_id, ())],
        }
        for query_id, text, ids in rows
    ]
