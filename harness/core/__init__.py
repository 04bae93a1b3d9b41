"""Ground that every room stands on: errors, hashes, files, locks, paths. No JAX, no config."""
