"""Optimizers: from a gradient to an update."""
