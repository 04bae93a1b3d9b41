"""Setup of JAX before it is imported: version, options, flags on CPU. Nothing here imports it."""
