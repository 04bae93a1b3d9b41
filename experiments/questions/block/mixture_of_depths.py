"""Mixture of depths: every second block changes the T/8 tokens of largest w = x.r alone: x + w f(x)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from harness.extend import PreNorm, SideOutputs, project, register_block, weight


@dataclass(frozen=True)
class Options:
    share: float = 0.125
    """Share of the tokens that a routed block changes."""


@register_block("mixture_of_depths", Options)
class MixtureOfDepths(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.is_routed, self.share = context.layer % 2 == 1, options.share
        if self.is_routed:
            D = context.shape.width
            self.router, self.predictor = (weight((D, 1), ("width", None), fan_in=D) for _ in range(2))

    def __call__(self, x_BTD, attend, feed, step):
        y_BTD = super().__call__(x_BTD, attend, feed)
        if not self.is_routed:
            return y_BTD
        w_BT1 = project(x_BTD, self.router, exact=True)
        guess_BT = project(jax.lax.stop_gradient(x_BTD), self.predictor, exact=True)[..., 0].astype(
            jnp.float32
        )
        if step is None:  # judged: the choice among all tokens of a sequence would see the future
            return x_BTD + jnp.where(guess_BT[..., None] > 0, w_BT1 * (y_BTD - x_BTD), 0)
        count = max(1, round(self.share * x_BTD.shape[1]))
        least_B1 = jax.lax.top_k(jax.lax.stop_gradient(w_BT1[..., 0]), count)[0][:, -1:]
        is_chosen_BT = w_BT1[..., 0] >= least_B1
        loss_BT = jax.nn.softplus(guess_BT) - jnp.where(is_chosen_BT, guess_BT, 0)
        changed_BTD = x_BTD + jnp.where(is_chosen_BT[..., None], w_BT1 * (y_BTD - x_BTD), 0)
        return changed_BTD, SideOutputs(auxiliary=jnp.mean(loss_BT))
