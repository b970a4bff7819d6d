"""Run files, digests, manifests, paths, progress, layers and the evidence ledger."""
