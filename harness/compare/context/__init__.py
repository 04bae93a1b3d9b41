"""Context of a verdict: fairness, forgetting, expert load, sample quality and provenance."""
