"""RoPE with two bases: global layers turn more slowly, f_j = base^(-2j/K), and maybe only a share of their
pairs."""

from dataclasses import dataclass

import jax.numpy as jnp

from harness.extend import register_position


@dataclass(frozen=True)
class Options:
    cycle: int = 2
    """Layers of a cycle; the last of each is global."""
    local_base: float = 10_000.0
    global_base: float = 1_000_000.0
    global_share: float = 1.0
    """Share of the pairs of a global layer that turns."""


@register_position("two_bases", Options)
def two_bases(context, options):
    is_global = context.layer % options.cycle == options.cycle - 1
    base, share = (options.global_base, options.global_share) if is_global else (options.local_base, 1.0)
    pairs = context.shape.head_width // 2
    frequency_J = base ** (-jnp.arange(pairs) / pairs)
    return jnp.where(jnp.arange(pairs) < share * pairs, frequency_J, 0.0)
