"""Estimates of time and memory, on Kaggle's devices and on this machine."""
