"""Smear: x_t += c sigmoid(w.x_t[:12]) x_(t-1) on the embedding, c = 0 and w = 0 at the start."""

import jax
from flax import nnx

from harness.extend import gather_weight, register_embedding, shift_time, zeros

INPUTS = 12
"""First values of x that the gate reads."""


@register_embedding("smear")
class Smear(nnx.Module):
    def __init__(self, context, options):
        self.gate = zeros((min(INPUTS, context.shape.width), 1), (None, None))
        self.share = zeros((1,), (None,))

    def __call__(self, x_BTD, document_BT):
        gate, share = (gather_weight(param, x_BTD.dtype) for param in (self.gate, self.share))
        gate_BT1 = jax.nn.sigmoid(x_BTD[..., : len(gate)] @ gate)
        return x_BTD + share * gate_BT1 * shift_time(x_BTD, 1, document_BT)
