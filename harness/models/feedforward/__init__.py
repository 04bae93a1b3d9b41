"""One file a mechanism; importing the folder registers them."""

from harness.models.feedforward import moe, swiglu

__all__ = ["moe", "swiglu"]
