"""GEGLU: y = (gelu(x G) * x U) V."""

import jax

from harness.extend import SwiGLU, project, register_feedforward


@register_feedforward("geglu")
class GEGLU(SwiGLU):
    def __call__(self, x_BTD):
        return project(jax.nn.gelu(project(x_BTD, self.gate)) * project(x_BTD, self.up), self.down)
