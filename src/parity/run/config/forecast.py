"""Section `[forecast]`: assumptions about the leaderboard."""

from pydantic import Field

from parity.run.config.section import Section


class ForecastConfig(Section):
    """Assumptions about the leaderboard; the seen share p is `scoring.seen_share`."""

    share_rows: float = Field(12.0, gt=0.0)
    """Weight of the prior on p, in hidden rows (12 rows mean a standard deviation of 0.12)."""
    rows: int = Field(0, ge=0)
    """Scored rows of the hidden test; 0 means those of test.csv, or `shipping.queries` if test.csv
    is only a sample."""
    factor: float = Field(0.1, ge=0.0)
    """Ratio of leaderboard to CV common to all submissions: standard deviation of its logarithm."""
    residual: float = Field(0.08, gt=0.0)
    """Ratio of leaderboard to CV of a single submission: standard deviation of its logarithm. The
    default was fitted on 36 simulated competitions and checked on 40 others."""
    pairs: str = ""
    """CSV file of earlier submissions not in the ledger: name, split, seen, unseen, score."""
