"""One file a mechanism; importing the folder registers them."""

from harness.models.attention import gated, gqa, mha, mla, nope, pattern, window

__all__ = ["gated", "gqa", "mha", "mla", "nope", "pattern", "window"]
