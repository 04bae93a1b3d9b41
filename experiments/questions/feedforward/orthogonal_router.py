"""Orthogonal router: L += 1e-2 |W'W - I|^2, the columns of W at unit length."""

import jax.numpy as jnp

from harness.extend import MoE, MoEOptions, gather_weight, register_experts

RATE = 1e-2


@register_experts("orthogonal_router", MoEOptions)
class OrthogonalRouter(MoE):
    def auxiliary(self, scores_BTE, routing):
        router_DE = gather_weight(self.router, scores_BTE.dtype)
        unit_DE = router_DE / jnp.sqrt(jnp.sum(jnp.square(router_DE), axis=0) + 1e-12)
        # As sums, not as a product, which would cost next to nothing a token and yet have to be counted.
        overlap_EE = jnp.sum(unit_DE[:, :, None] * unit_DE[:, None, :], axis=0)
        return RATE * jnp.sum(jnp.square(overlap_EE - jnp.eye(len(overlap_EE))))
