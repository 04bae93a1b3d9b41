"""Measurements of the package's structure: rooms, names and docstrings. Run `python -m tests.house`."""
