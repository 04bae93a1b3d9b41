"""Sequences of tokens that lie in files, read in place."""
