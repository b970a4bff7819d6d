"""What the evidence says, in tables; no torch."""
