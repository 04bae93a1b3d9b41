"""Difference of two checkpoints."""
