"""Forecast a leaderboard score from CV, and check past forecasts."""
