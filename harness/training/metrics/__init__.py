"""Metrics of a user's own: what they are told, their values at a step, and those of held-out rows."""
