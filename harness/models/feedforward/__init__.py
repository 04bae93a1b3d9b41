"""Feed-forward mechanisms, one file each. Importing this package registers them."""

from harness.models.feedforward import expert_choice, latent_experts, layers_in_turn, moe, swiglu

__all__ = ["expert_choice", "latent_experts", "layers_in_turn", "moe", "swiglu"]
