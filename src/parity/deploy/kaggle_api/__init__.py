"""The only code that talks to Kaggle: datasets, kernels, submissions."""
