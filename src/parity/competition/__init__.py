"""The organiser's facts: queries, corpus, qrels, splits, rankings and the metric; no torch."""
