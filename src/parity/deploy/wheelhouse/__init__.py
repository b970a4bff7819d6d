"""The wheels Kaggle's image is missing: resolved, locked, downloaded, verified."""
