"""Kaggle's image: its lock, building it, and running commands in it."""
