"""Base models and adapters: files, shapes, loading."""
