"""Described clusters: chips, links, failures, power."""
