"""Measure an encoder on the probe: the layers of evidence that any environment can be asked for.

Local runs and the kernel call the same function, so a layer that differs is a difference in fact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from parity.competition.query import Query
from parity.retrieval import prompts
from parity.retrieval.encoder import Encoder
from parity.retrieval.retrieve import Examples, Index, Retrieval, retrieve
from parity.run import digest, environment
from parity.run.config.run_file import PromptConfig

_K = 25
_MODEL_PACKAGES = tuple(name for name in environment.PACKAGES if name != "kaggle-parity")


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the probe showed.

    Attributes:
        found: texts, token ids, embeddings and ranking of the probe's queries.
        layers: evidence layer → digest or value, from `template` to `ranking`.
    """

    found: Retrieval
    layers: dict[str, str]


def measure(
    encoder: Encoder,
    config: PromptConfig,
    probe: Sequence[Query],
    passages: Index,
    examples: Examples,
) -> ProbeResult:
    """Ask the probe's queries and digest every layer on the way.

    Args:
        encoder: base and adapter.
        config: the prompt's templates and lengths.
        probe: its queries, in order.
        passages: the corpus as this encoder embeds it.
        examples: the probe's few-shot examples.
    """
    found = retrieve(encoder, config, probe, passages, examples, k=_K)
    layers = {
        "template": prompts.template_digest(config),
        "examples": examples_digest(config, examples),
        **found.asked.digests(),
        "base": encoder.base.digest(),
        "adapter": encoder.adapter,
        "precision": f"{str(encoder.dtype).removeprefix('torch.')}/{encoder.config.quantize}",
        "device": encoder.device.type,
        "packages": digest.of_value({name: environment.version(name) for name in _MODEL_PACKAGES}),
        "embeddings": digest.of_bytes(found.vectors.tobytes() + passages.vectors.tobytes()),
        "ranking": found.ranking.digest(),
    }
    return ProbeResult(found, layers)


def examples_digest(config: PromptConfig, examples: Examples) -> str:
    """Return the digest of which few-shot examples each query is shown, and by which policy."""
    shown = {
        query_id: [[one.query.query_id, one.misconception_id] for one in chosen]
        for query_id, chosen in examples.items()
    }
    return digest.of_value([config.examples, config.example_count, config.example_seed, shown])
