"""Measurement of an encoder on the probe: the layers of evidence that all environments share.

Local runs and the kernel call the same function, so layers differ only if the measurements do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from parity.competition.query import Query
from parity.retrieval import prompts
from parity.retrieval.encoder import Encoder
from parity.retrieval.retrieve import Examples, Index, Retrieval, retrieve
from parity.run import digest, environment
from parity.run.config.prompt import PromptConfig

_MODEL_PACKAGES = tuple(name for name in environment.PACKAGES if name != "kaggle-parity")


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Result of a measurement on the probe.

    Attributes:
        retrieval: texts, token ids, embeddings and ranking of the probe's queries.
        layers: evidence layer → digest or value, from `template` to `ranking`.
    """

    retrieval: Retrieval
    layers: dict[str, str]


def measure(
    encoder: Encoder,
    config: PromptConfig,
    probe: Sequence[Query],
    passages: Index,
    examples: Examples,
    *,
    k: int,
) -> ProbeResult:
    """Rank the probe's queries and compute the digest of every layer.

    Args:
        encoder: base model and adapter.
        config: templates and lengths of the prompt.
        probe: queries of the probe, in order.
        passages: corpus embedded by this encoder.
        examples: few-shot examples of the queries.
        k: number of passages per query in the ranking.
    """
    retrieval = retrieve(encoder, config, probe, passages, examples, k=k)
    layers = {
        "template": prompts.template_digest(config),
        "examples": examples_digest(config, examples),
        **retrieval.queries.digests(),
        "base": encoder.base.digest(),
        "adapter": encoder.adapter,
        "precision": f"{str(encoder.dtype).removeprefix('torch.')}/{encoder.config.quantize}",
        "device": encoder.device.type,
        "packages": digest.of_value({name: environment.version(name) for name in _MODEL_PACKAGES}),
        "embeddings": digest.of_bytes(retrieval.vectors.tobytes() + passages.vectors.tobytes()),
        "ranking": retrieval.ranking.digest(),
    }
    return ProbeResult(retrieval, layers)


def examples_digest(config: PromptConfig, examples: Examples) -> str:
    """Return the digest of the policy and of the few-shot examples of each query."""
    shown = {
        query_id: [[example.query.query_id, example.position] for example in chosen]
        for query_id, chosen in examples.items()
    }
    return digest.of_value([config.examples, config.example_count, config.example_seed, shown])
