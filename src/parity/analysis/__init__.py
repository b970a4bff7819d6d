"""Why two scores differ, and what the next leaderboard score will be; no torch."""
