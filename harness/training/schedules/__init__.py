"""Schedules: the learning rate and other numbers by the place in a run. Importing this registers them."""

from harness.training.schedules import shapes

__all__ = ["shapes"]
