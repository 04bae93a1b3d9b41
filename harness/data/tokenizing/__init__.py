"""Tokens of a source, built by any number of processes that share its pieces."""
