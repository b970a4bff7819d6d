"""What a competition provides: queries, corpus, labels, splits and the metric; no torch."""
