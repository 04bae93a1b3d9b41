"""Softmax router: the weights of the chosen experts are the softmax of their logits; with `whole`, their
parts of the softmax over all experts."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from harness.extend import MoE, MoEOptions, project, register_experts


@dataclass(frozen=True)
class Options(MoEOptions):
    whole: bool = False


@register_experts("softmax_router", Options)
class SoftmaxRouter(MoE):
    def scores(self, x_BTD):
        return jax.nn.softmax(project(x_BTD.astype(jnp.float32), self.router), axis=-1)

    def choose(self, scores_BTE):
        routing = super().choose(scores_BTE)
        if not self.options.whole:
            return routing
        is_chosen_BTKE = routing.chosen_BTK[..., None] == jnp.arange(scores_BTE.shape[-1])
        share_BTK = jnp.sum(jnp.where(is_chosen_BTKE, scores_BTE[:, :, None], 0.0), axis=-1)
        return routing._replace(share_BTK=share_BTK)
