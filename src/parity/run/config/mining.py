"""Section `[mining]`: hard negatives."""

from typing import Literal

from pydantic import Field

from parity.run.config.section import Section


class MiningConfig(Section):
    """Which ranked passages become negatives."""

    strategy: Literal["range", "percpos", "random", "mix"] = "mix"
    """Selection of negatives: a range of ranks, below a share of the positive's score (`percpos`),
    at random, or a mix of the last two."""
    scope: Literal["corpus", "positives"] = "positives"
    """Candidates: the entire corpus, or only passages that are positive for a train query."""
    low: int = Field(2, ge=1)
    """First rank of `range`, from 1, inclusive."""
    high: int = Field(200, ge=1)
    """Last rank of `range`, from 1, inclusive; also the depth of the mining ranking."""
    count: int = Field(15, ge=1)
    """Number of negatives mined for each query."""
    percpos: float = Field(0.95, gt=0.0, le=1.0)
    """Highest score of a negative, as a share of the positive's score, 0 to 1."""
    random_share: float = Field(0.5, ge=0.0, le=1.0)
    """Share of random negatives in `mix`, 0 to 1."""
    examples: Literal["", "none", "fixed", "question", "random"] = ""
    """How few-shot examples are chosen for mining; empty means the same as `prompt.examples`."""
    quantize: Literal["", "none", "4bit", "fp8"] = ""
    """Quantization during mining; empty means the same as `encoder.quantize`."""
    seed: int = 0
    """Random seed of the draws."""
