"""Splits of the labeled queries into train and validation."""
