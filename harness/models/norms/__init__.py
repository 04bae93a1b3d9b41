"""Norms of the residual stream, of queries and keys, of latents, and before the head."""
