"""Training examples from images."""
