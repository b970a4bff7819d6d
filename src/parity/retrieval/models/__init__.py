"""Base models and adapters: where they are, what they are, how they load."""
