"""Biases: y = (silu(x G + a) * (x U + b)) V + c, biases 0 at the start and without decay."""

import jax

from harness.extend import SwiGLU, constant, gather_weight, project, register_feedforward


@register_feedforward("feedforward_biases")
class FeedforwardBiases(SwiGLU):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.gate_bias, self.up_bias = (constant(context.shape.ffn, "ffn", 0.0) for _ in range(2))
        self.down_bias = constant(context.shape.width, "width", 0.0)

    def __call__(self, x_BTD):
        biases = (self.gate_bias, self.up_bias, self.down_bias)
        gate, up, down = (gather_weight(bias, x_BTD.dtype) for bias in biases)
        hidden_BTF = jax.nn.silu(project(x_BTD, self.gate) + gate) * (project(x_BTD, self.up) + up)
        return project(hidden_BTF, self.down) + down
