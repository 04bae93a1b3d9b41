"""Typed configs, their composition, run identity and the pair check."""
