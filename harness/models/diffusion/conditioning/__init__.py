"""Conditioning of the layers on time and label, one file each. Importing this package registers them."""

from harness.models.diffusion.conditioning import adaptive_norm, in_context

__all__ = ["adaptive_norm", "in_context"]
