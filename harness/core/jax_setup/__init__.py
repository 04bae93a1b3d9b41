"""What is decided before JAX is imported: version, options, flags on CPU. Nothing here imports it."""
