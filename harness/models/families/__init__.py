"""Model families by name: the decoder, the diffusion transformer, and whole models of a user's own."""
