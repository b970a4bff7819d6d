"""We and the peers side by side in one run: same model, same texts, same embeddings, then time."""
