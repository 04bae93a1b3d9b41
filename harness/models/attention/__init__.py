"""One file a mechanism; importing the folder registers them."""

from harness.models.attention import gqa, hybrid, mha

__all__ = ["gqa", "hybrid", "mha"]
