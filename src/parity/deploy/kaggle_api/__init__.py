"""The Kaggle API: the only package that talks to Kaggle (datasets, kernels, submissions)."""
