"""Extrapolation of finished pairs to runs without a sibling."""
