"""Head gate: y_h *= 2 sigmoid(w_h.x[:12]), w = 0 at the start, so that each gate starts at 1."""

import jax

from harness.extend import GroupedOptions, SoftmaxAttention, project, register_softmax, zeros

INPUTS = 12
"""First values of x that the gates read."""


@register_softmax("head_gate", GroupedOptions, lambda context, options: 2.0 * INPUTS * context.shape.heads)
class HeadGate(SoftmaxAttention):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.gate = zeros((INPUTS, context.shape.heads), (None, "heads"))

    def attend_heads(self, x_BTD, rotary):
        gate_BTH = 2 * jax.nn.sigmoid(project(x_BTD[..., :INPUTS], self.gate))
        return super().attend_heads(x_BTD, rotary) * gate_BTH[..., None]
