"""Dynamic mixing of heads: A'_h = A_h + w2_h sum_g n(w1)_g A_g after the softmax, w1 and w2 linear in the
query's x; W2 = 0 at the start."""

import jax.numpy as jnp

from harness.extend import (
    GroupedOptions,
    SoftmaxAttention,
    attention_scores,
    project,
    register_softmax,
    rms_normalise,
    visible_keys,
    weight,
    weighted_values,
    zeros,
)


def mixing_flops(context, options):
    return 2.0 * 2 * context.shape.width * context.shape.heads


@register_softmax("dynamic_heads", GroupedOptions, mixing_flops, in_steps=True)
class DynamicHeads(SoftmaxAttention):
    def __init__(self, context, options):
        super().__init__(context, options)
        D, H = context.shape.width, context.shape.heads
        self.read, self.write = weight((D, H), ("width", None), fan_in=D), zeros((D, H), ("width", "heads"))

    def attend_heads(self, x_BTD, rotary):
        query_BHTK, key_BGTK, value_BGTK = self.heads(x_BTD, rotary)
        weight_BHTS = self.weights(attention_scores(query_BHTK, key_BGTK), visible_keys(rotary))
        read_BHT1 = rms_normalise(project(x_BTD, self.read), 1e-6).swapaxes(1, 2)[..., None]
        write_BHT1 = project(x_BTD, self.write).swapaxes(1, 2)[..., None]
        shared_B1TS = jnp.sum(read_BHT1 * weight_BHTS, axis=1, keepdims=True)
        mixed_BHTK = weighted_values(weight_BHTS + write_BHT1 * shared_B1TS, value_BGTK)
        return mixed_BHTK.swapaxes(1, 2)
