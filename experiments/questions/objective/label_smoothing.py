"""Label smoothing: (1 - s) CE + s mean_v -log p_v (arXiv:1512.00567, section 7)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import ObjectiveLoss, cross_entropy, register_objective


@dataclass(frozen=True)
class Options:
    share: float = 0.1


@register_objective("label_smoothing", Options)
class LabelSmoothing(nnx.Module):
    def __init__(self, context, options, new_layer):
        self.share, self.vocabulary = options.share, context.shape.vocabulary

    def __call__(self, forward, tokens_BT1):
        logits_BTV = forward(tokens_BT1[:, :-1]).logits_BTV
        loss_BT = cross_entropy(logits_BTV, tokens_BT1[:, 1:])
        mean_BT = jnp.mean(logits_BTV[..., : self.vocabulary], axis=-1)
        uniform = jnp.mean(jax.nn.logsumexp(logits_BTV, axis=-1) - mean_BT)
        return ObjectiveLoss((1 - self.share) * jnp.mean(loss_BT) + self.share * uniform, loss_BT)
