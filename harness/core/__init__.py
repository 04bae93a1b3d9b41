"""Errors, hashes, files, locks and paths that every room uses. No JAX, no config."""
