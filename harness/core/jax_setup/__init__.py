"""What is decided before JAX is imported: its version, its options, its flags on CPU. Nothing here imports it."""
