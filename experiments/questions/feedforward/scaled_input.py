"""Score on the input: y = f_e(sigmoid(s_e) x), e the one expert of the highest score."""

from dataclasses import dataclass

import jax.numpy as jnp

from harness.extend import MoE, MoEOptions, RouterStats, register_experts


@dataclass(frozen=True)
class Options(MoEOptions):
    top_k: int = 1

    def __post_init__(self):
        """Allow one expert a token: the router learns by the scale of its input."""


@register_experts("scaled_input", Options)
class ScaledInput(MoE):
    def __call__(self, x_BTD):
        scores_BTE = self.scores(x_BTD)
        routing = self.choose(scores_BTE)
        is_chosen_BTE = routing.chosen_BTK == jnp.arange(scores_BTE.shape[-1])
        score_BT1 = jnp.sum(jnp.where(is_chosen_BTE, scores_BTE, 0.0), axis=-1, keepdims=True)
        y_BTD, dropped = self.apply(x_BTD * score_BT1.astype(x_BTD.dtype), routing)
        if self.shared is not None:
            y_BTD = y_BTD + self.shared(x_BTD)
        return y_BTD, RouterStats(routing.load_E, dropped, self.auxiliary(scores_BTE, routing))
