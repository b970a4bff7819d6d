"""The diary's run log: its reader, what it shows, and the backtest of leaderboard models on it."""
