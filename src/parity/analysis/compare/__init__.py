"""Compare two evidence records layer by layer."""
