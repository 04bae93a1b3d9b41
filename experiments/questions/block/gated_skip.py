"""One gated skip, from layer 3/11 L to 6/11 L: x += sig(s) 2 sig(w.x[:12]) x_early, s = -1.5, w = 0."""

import jax
from flax import nnx

from harness.extend import PreNorm, constant, gather_weight, project, register_block, zeros


class Early(nnx.Module):
    def __init__(self, context, options):
        pass

    def open(self, x_BTD):
        return x_BTD, None

    def close(self, stream):
        return stream[0]


@register_block("gated_skip", stream=Early)
class GatedSkip(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        L = context.shape.layers
        self.leaves, self.joins = (
            context.layer == 3 * L // 11,
            context.layer == max(6 * L // 11, 3 * L // 11 + 1),
        )
        if self.joins:
            self.gate, self.skip_level = zeros((12, 1), (None, None)), constant(1, None, -1.5)

    def __call__(self, stream, attend, feed):
        x_BTD, early_BTD = stream
        if self.joins:
            gate_BT1 = 2 * jax.nn.sigmoid(project(x_BTD[..., :12], self.gate))
            x_BTD = x_BTD + jax.nn.sigmoid(gather_weight(self.skip_level, x_BTD.dtype)) * gate_BT1 * early_BTD
        x_BTD = super().__call__(x_BTD, attend, feed)
        return x_BTD, x_BTD if self.leaves else early_BTD
