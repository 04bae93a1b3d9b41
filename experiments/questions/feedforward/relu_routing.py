"""ReLU routing: y = sum_e relu(x W_e) f_e(x) over all experts; L += c mean relu(x W), and after each step
c *= 1.2^sign(wanted - sparsity), from 1e-8. `top_k` experts a token are wanted. All experts are computed."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from harness.extend import (
    LayerContext,
    MoE,
    MoEOptions,
    RouterStats,
    Routing,
    constant,
    gather_weight,
    project,
    register_feedforward,
)


@dataclass(frozen=True)
class Options(MoEOptions):
    balance: str = "none"
    growth: float = 1.2


def model_flops(context, options):
    """Count the experts that are wanted."""
    return 2.0 * context.shape.width * (options.experts + 3 * options.top_k * context.shape.ffn)


def after_step(options, params, statistics):
    """Return the new coefficient. `dropped` holds the share of experts whose weight is 0."""
    wanted = 1 - options.top_k / options.experts
    return {"rate": params["rate"] * options.growth ** jnp.sign(wanted - statistics.dropped)[..., None]}


@register_feedforward("relu_routing", Options, model_flops=model_flops, update_after_step=after_step)
class ReLURouting(MoE):
    def __init__(self, context: LayerContext, options: Options):
        super().__init__(context, options)
        self.rate = constant(1, None, 1e-8)

    def __call__(self, x_BTD):
        weight_BTE = jax.nn.relu(project(x_BTD.astype(jnp.float32), self.router))
        E = weight_BTE.shape[-1]
        every_BTE = jnp.zeros_like(weight_BTE, int) + jnp.arange(E)
        even_E = jnp.full((E,), 1 / E)
        y_BTD, _ = self.apply(x_BTD, Routing(every_BTE, weight_BTE, even_E, jnp.ones(())))
        rate = jax.lax.stop_gradient(gather_weight(self.rate, weight_BTE.dtype))[0]
        sparsity = jnp.mean(weight_BTE <= 0, dtype=jnp.float32)
        return y_BTD, RouterStats(even_E, sparsity, rate * jnp.mean(weight_BTE))
