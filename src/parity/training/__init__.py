"""Negatives, batches, the loss and the resumable trainer."""
