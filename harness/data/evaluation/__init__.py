"""Held-out rows of every domain: of the data's own sources, and of validation sets of their own."""
