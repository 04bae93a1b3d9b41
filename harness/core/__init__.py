"""What does every room build on? Errors, hashes, files, locks and paths; no JAX, no config."""
