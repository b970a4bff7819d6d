"""The base class of all sections of a run file."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen section: strict types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
