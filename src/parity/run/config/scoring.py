"""Section `[scoring]`: metric and bootstrap."""

from pydantic import Field

from parity.run.config.section import Section


class ScoringConfig(Section):
    """How scores are computed and reported."""

    seen_share: float = Field(0.25, ge=0.0, le=1.0)
    """Share p of hidden rows with a seen label, 0 to 1. The projected score is
    p·MAP_seen + (1-p)·MAP_unseen."""
    bootstrap: int = Field(1000, ge=100)
    """Number of bootstrap resamples of a confidence interval."""
    seed: int = 0
    """Random seed of the bootstrap."""
