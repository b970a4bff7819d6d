"""Declare `forecast`, which predicts the leaderboard score."""

from parity.pipeline.declaration import EVALUATION, MODEL, Command, Option

COMMAND = Command(
    "forecast",
    "Predict a leaderboard score interval from CV and record it before submitting.",
    "parity.pipeline.command_cores.forecast:forecast_or_check",
    options=(
        MODEL,
        EVALUATION,
        Option(
            "--check",
            "compare past forecasts of all runs with the scores that arrived",
            is_switch=True,
            needs_run=False,
        ),
    ),
    has_round=True,
    has_json=True,
)
