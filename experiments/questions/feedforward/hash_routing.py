"""Hash routing: a token's experts are those of the k largest hashes of its id and their index, weighted by
the router's scores. Use it with balance: none, since nothing can move the choice."""

import jax.numpy as jnp

from harness.extend import MoE, MoEOptions, RouterStats, register_experts, route


def hashed(values):
    """Mix the bits of unsigned integers of 32 bits."""
    for factor in (0x45D9F3B, 0x119DE1F3):
        values = (values ^ (values >> 16)) * jnp.uint32(factor)
    return values ^ (values >> 16)


@register_experts("hash_routing", MoEOptions)
class HashRouting(MoE):
    def __call__(self, x_BTD, tokens_BT):
        E, scores_BTE = self.options.experts, self.scores(x_BTD)
        pair_BTE = tokens_BT[..., None].astype(jnp.uint32) * E + jnp.arange(E, dtype=jnp.uint32)
        routing = route(scores_BTE, hashed(pair_BTE).astype(jnp.float32), self.options.top_k)
        y_BTD, dropped = self.apply(x_BTD, routing)
        return y_BTD, RouterStats(routing.load_E, dropped, self.auxiliary(scores_BTE, routing))
