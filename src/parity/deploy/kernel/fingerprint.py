"""What the digests of evidence hide, written down by the same code wherever a model is measured.

Digests, ids, versions and lengths only: it goes into the ledger, where no text may be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.competition.few_shot import Example
from parity.competition.query import Corpus, QueryId
from parity.run import digest, environment
from parity.run.config.run_file import PromptConfig

_SHORT = 16  # hex digits that tell 64 rows apart
_TEXTS = ("format", "instruction", "query", "passage")
_PLAIN = ("query_max_length", "passage_max_length", "examples", "example_count", "example_seed")
_RAN = ("budget", "processes", "precision")


@dataclass(frozen=True, slots=True)
class ProbeTexts:
    """The probe as one encoder was asked it; n rows.

    Attributes:
        query_ids: of the n rows, in order.
        texts: the n prompts.
        tokens: n lists of token ids.
        shown: query id → its few-shot examples.
        vectors: (n, d) float32, embeddings of the prompts.
        passages: (m, d) float32, embeddings of the corpus in ascending order of id.
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
    """Return the facts of a record of evidence, plain values without a text.

    Args:
        prompt: templates and lengths; templates are told by digest.
        corpus: misconception id → sentence, told by digest.
        probed: what the probe was asked and how it was embedded.
        speed: of the encoder; its seconds stay out.
        budget: tokens a pack by the run file, for embeddings that were kept on disk.
    """
    ran = {name: speed[name] for name in _RAN if name in speed}
    return {
        "environment": environment.found(),
        "ran": {**ran, "budget": ran.get("budget") or budget},
        "prompt": {
            **{name: digest.of_text(getattr(prompt, name))[:_SHORT] for name in _TEXTS},
            **{name: getattr(prompt, name) for name in _PLAIN},
        },
        "corpus": digest.of_value(corpus),
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
    asked = zip(probed.query_ids, probed.texts, probed.tokens, strict=True)
    return [
        {
            "query_id": query_id,
            "text": text_mark(text),
            "tokens": tokens_mark(ids),
            "length": len(ids),
            "examples": [one.query.query_id for one in probed.shown.get(query_id, ())],
        }
        for query_id, text, ids in asked
    ]
