"""The wheels missing from Kaggle's image: resolved, locked, downloaded, verified."""
