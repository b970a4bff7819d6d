"""Kaggle's image pinned by digest, built, run, and the wheels it lacks; no torch."""
