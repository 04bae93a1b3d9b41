"""Compilers' statistics of a planned step."""
