"""The project's own competition in Kaggle's schema."""
