"""Sections `[evaluations.NAME]`: settings under which a model is scored, other than the run's own.

An evaluation may change how a model is scored: prompt, precision, split, metric. It can't change
what the model was made from, which is `[mining]` and `[training]`.
"""

from typing import Any

from pydantic import ConfigDict, RootModel

SECTIONS = ("competition", "split", "prompt", "encoder", "scoring")
"""Sections of the run file that decide how a model is scored."""


class EvaluationConfig(RootModel[dict[str, dict[str, Any]]]):
    """Settings of one evaluation: section → key → value, over those of the run file.

    `stage_settings.check_evaluations` checks them against the sections of the run file.
    """

    model_config = ConfigDict(frozen=True)
