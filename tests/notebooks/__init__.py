"""The notebooks of docs/notebooks, executed: `python -m tests.notebooks` writes their outputs again."""
