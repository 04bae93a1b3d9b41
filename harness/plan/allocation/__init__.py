"""Chips for each run of a roster."""
