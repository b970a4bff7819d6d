"""The inference kernel: what it runs, what it reports, and its offline rehearsal."""
