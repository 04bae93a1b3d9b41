"""State-space mechanisms. Importing this package registers them."""

from harness.models.attention.state_space import mamba2

__all__ = ["mamba2"]
