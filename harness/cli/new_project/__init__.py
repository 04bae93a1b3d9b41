"""A project of a user's own, as `harness init` writes it."""
