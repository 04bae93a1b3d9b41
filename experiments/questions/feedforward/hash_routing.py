"""Hash routing: a token's experts are those of a fixed random table of its id, weighted by router scores. Use
it with balance: none, since nothing can move the choice."""

import jax.numpy as jnp
import numpy as np

from harness.extend import LayerContext, MoE, MoEOptions, RouterStats, register_experts, route


@register_experts("hash_routing", MoEOptions)
class HashRouting(MoE):
    def __init__(self, context: LayerContext, options: MoEOptions):
        super().__init__(context, options)
        self.vocabulary = context.shape.vocabulary

    def __call__(self, x_BTD, tokens_BT):
        options, scores_BTE = self.options, self.scores(x_BTD)
        draw_VE = np.random.default_rng(0).random((self.vocabulary, options.experts))
        experts_VK = np.argsort(draw_VE, axis=1)[:, : options.top_k]
        is_own_VE = (experts_VK[:, :, None] == np.arange(options.experts)).any(1).astype(np.float32)
        is_own_BTE = jnp.take(is_own_VE, tokens_BT, axis=0)
        routing = route(scores_BTE, 2 * is_own_BTE, options.top_k)
        y_BTD, dropped = self.apply(x_BTD, routing)
        return y_BTD, RouterStats(routing.load_E, dropped, self.auxiliary(scores_BTE, routing))
