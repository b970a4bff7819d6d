"""Kaggle's image: its lock, how it is built, and how commands run in it."""
