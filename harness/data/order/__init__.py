"""Order of examples: which one comes at which place."""
