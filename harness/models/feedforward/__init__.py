"""Feed-forward mechanisms, one file each. Importing this package registers them."""

from harness.models.feedforward import moe, swiglu

__all__ = ["moe", "swiglu"]
