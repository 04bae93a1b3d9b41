"""One file a mechanism; importing the folder registers them."""

from harness.models.feedforward import swiglu

__all__ = ["swiglu"]
