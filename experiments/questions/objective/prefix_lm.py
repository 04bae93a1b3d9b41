"""Prefix language model: the first k ~ U(0, T) tokens see each other, the loss is on those after them."""

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import (
    GroupedOptions,
    ObjectiveLoss,
    SoftmaxAttention,
    attention_scores,
    cross_entropy,
    project,
    register_attention,
    register_objective,
    softmax_weights,
    visible_keys,
    weighted_values,
)


@register_attention("prefix", GroupedOptions)
class PrefixAttention(SoftmaxAttention):
    def __call__(self, x_BTD, rotary, prefix_BT=None):
        query_BHTK, key_BGTK, value_BGTK = self.heads(x_BTD, rotary)
        visible_BHTS = visible_keys(rotary)
        if prefix_BT is not None:
            visible_BHTS = visible_BHTS | (prefix_BT[:, :, None] & prefix_BT[:, None])[:, None]
        weight_BHTS = softmax_weights(attention_scores(query_BHTK, key_BGTK), visible_BHTS)
        return project(weighted_values(weight_BHTS, value_BGTK).swapaxes(1, 2), self.output)


@register_objective("prefix_lm", gives=("prefix_BT",))
class PrefixLM(nnx.Module):
    def __init__(self, context, options, new_layer):
        pass

    def __call__(self, forward, tokens_BT1, key):
        B, T = tokens_BT1.shape[0], tokens_BT1.shape[1] - 1
        length_B1 = jax.random.randint(key, (B, 1), 0, T)
        is_prefix_BT = jnp.arange(T) < length_B1
        logits_BTV = forward(tokens_BT1[:, :-1], prefix_BT=is_prefix_BT).logits_BTV
        loss_BT = cross_entropy(logits_BTV, tokens_BT1[:, 1:])
        counts_BT = jnp.arange(T) >= length_B1 - 1  # the last token of the prefix predicts the first after it
        minimised = jnp.sum(loss_BT * counts_BT) / jnp.sum(counts_BT)
        return ObjectiveLoss(minimised, loss_BT)
