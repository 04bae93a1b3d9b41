"""Router z-loss: L += 1e-3 mean lse(logits)^2."""

import jax
import jax.numpy as jnp

from harness.extend import MoE, MoEOptions, register_experts

RATE = 1e-3


@register_experts("router_z_loss", MoEOptions)
class RouterZLoss(MoE):
    def auxiliary(self, scores_BTE, routing):
        logits_BTE = jax.scipy.special.logit(jnp.clip(scores_BTE, 1e-6, 1 - 1e-6))
        return RATE * jnp.mean(jnp.square(jax.nn.logsumexp(logits_BTE, axis=-1)))
