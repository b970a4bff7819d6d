"""Run files, digests, manifests, paths, progress and the evidence ledger; no model, no data."""
