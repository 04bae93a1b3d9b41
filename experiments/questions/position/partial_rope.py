"""Partial RoPE: only a share of a head's pairs turns, by f_j = base^(-j/J) for j < J = share K/2, else 0."""

from dataclasses import dataclass

import jax.numpy as jnp

from harness.extend import UserError, register_position


@dataclass(frozen=True)
class Options:
    share: float = 0.25
    """Share of the pairs that turn."""
    base: float = 10_000.0

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise UserError(f"model.position.options.share={self.share} must be above 0 and at most 1.")


@register_position("partial_rope", Options)
def partial_rope(context, options):
    pairs = context.shape.head_width // 2
    turned = max(1, round(options.share * pairs))
    frequency_J = options.base ** (-jnp.arange(turned) / turned)
    return jnp.pad(frequency_J, (0, pairs - turned))
