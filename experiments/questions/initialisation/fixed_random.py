"""Fixed random matrices with trained factors: W = W0 + A B; W0 never learns, B starts at zero."""

from dataclasses import dataclass

import jax
from flax import nnx

from harness.extend import Scale, mup, project, register_feedforward, register_scaling, weight, zeros


@dataclass(frozen=True)
class Options:
    rank: int = 32


class FixedPlusFactors(nnx.Module):
    def __init__(self, size_in, size_out, axes, rank, depth=0):
        self.fixed = weight((size_in, size_out), axes, fan_in=size_in, depth=depth)
        self.a = weight((size_in, rank), (axes[0], None), fan_in=size_in)
        self.b = zeros((rank, size_out), (None, axes[1]))

    def __call__(self, x_BTI):
        return project(x_BTI, self.fixed) + project(project(x_BTI, self.a), self.b)


@register_feedforward("fixed_random", Options)
class FixedRandom(nnx.Module):
    """SwiGLU whose three matrices are random, plus factors."""

    def __init__(self, context, options):
        D, F = context.shape.width, context.shape.ffn
        self.gate, self.up = (FixedPlusFactors(D, F, ("width", "ffn"), options.rank) for _ in range(2))
        self.down = FixedPlusFactors(F, D, ("ffn", "width"), options.rank, context.shape.layers)

    def __call__(self, x_BTD):
        return self.down(jax.nn.silu(self.gate(x_BTD)) * self.up(x_BTD))


@register_scaling("fixed_random")
def rest(path, spec, growth, options):
    """Return a rate and a decay of zero for the fixed matrices."""
    return Scale(rate=0.0, decay=0.0) if path.endswith(".fixed") else mup(path, spec, growth, options)
