"""What every section of a run file is, and the section of the forecast."""

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A frozen section: strict types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ForecastConfig(Section):
    """What is believed of the leaderboard before its score; the seen share p is `scoring`'s."""

    share_rows: float = Field(12.0, gt=0.0)
    """How sure that p is: as after looking at so many hidden rows (12: give or take 0.12)."""
    rows: int = Field(0, ge=0)
    """Scored rows of the hidden test; 0: by test.csv, or shipping.queries where that is a stub."""
    factor: float = Field(0.1, ge=0.0)
    """How far CV and leaderboard part by a factor common to all that goes there: the standard
    deviation of its logarithm."""
    residual: float = Field(0.08, gt=0.0)
    """The same for what is each submission's own; set from models of different kinds in 36
    competitions that were cut from one table, and held in 40 others."""
    pairs: str = ""
    """A table of earlier submissions that the ledger lacks: name, split, seen, unseen, score."""
