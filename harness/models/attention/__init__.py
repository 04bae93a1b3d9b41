"""One file a mechanism; importing the folder registers them."""

from harness.models.attention import gated, gated_delta, gqa, mha, mla, nope, pattern, window

__all__ = ["gated", "gated_delta", "gqa", "mha", "mla", "nope", "pattern", "window"]
