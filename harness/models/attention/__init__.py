"""One file a mechanism; importing the folder registers them."""

from harness.models.attention import gqa, mha, nope, pattern, window

__all__ = ["gqa", "mha", "nope", "pattern", "window"]
