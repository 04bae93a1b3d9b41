"""How the layers are told time and label: one file a mechanism; importing the folder registers them."""

from harness.models.diffusion.conditioning import adaptive_norm, in_context

__all__ = ["adaptive_norm", "in_context"]
