"""Early head: the shared head also predicts from the middle of the stack, in the first tenth of the run."""

import jax.numpy as jnp
from flax import nnx

from harness.extend import (
    ObjectiveLoss,
    PreNorm,
    SideOutputs,
    cross_entropy,
    register_block,
    register_objective,
    rms_normalise,
)


@register_block("gives_middle", gives=("middle_BTD",))
class GivesMiddle(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.is_middle = context.layer == context.shape.layers // 2

    def __call__(self, x_BTD, attend, feed):
        given = {"middle_BTD": x_BTD} if self.is_middle else {}
        return super().__call__(x_BTD, attend, feed), SideOutputs(gives=given)


@register_objective("early_head")
class EarlyHead(nnx.Module):
    def __init__(self, context, options, new_layer):
        self.epsilon = context.norm_epsilon

    def __call__(self, forward, tokens_BT1, progress):
        run = forward(tokens_BT1[:, :-1])
        loss_BT = cross_entropy(run.logits_BTV, tokens_BT1[:, 1:])
        middle_BTD = run.given_arrays["middle_BTD"]
        read_BTD = rms_normalise(middle_BTD, self.epsilon).astype(middle_BTD.dtype)
        early = jnp.mean(cross_entropy(forward.unembed(read_BTD), tokens_BT1[:, 1:]))
        return ObjectiveLoss(jnp.mean(loss_BT) + jnp.maximum(0, 1 - 10 * progress) * early, loss_BT)
