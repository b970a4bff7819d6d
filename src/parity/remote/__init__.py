"""The one door to Kaggle and what goes through it: publish, push, follow, submit; no torch."""
