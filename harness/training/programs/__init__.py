"""Programs that a run compiles, and the cache that keeps them."""
