"""Read a table of earlier runs and summarize it."""
