"""Forgetting attention: score_ts += sum_(s<r<=t) ln sig(w_h x_r + b_h), instead of a rotation."""

import jax
import jax.numpy as jnp

from harness.extend import (
    GroupedOptions,
    SoftmaxAttention,
    attention_scores,
    constant,
    gather_weight,
    project,
    register_softmax,
    visible_keys,
    weight,
    weighted_values,
)


def gate_flops(context, options):
    return 2.0 * context.shape.width * context.shape.heads


@register_softmax("forgetting", GroupedOptions, gate_flops, in_steps=True)
class Forgetting(SoftmaxAttention):
    """Softmax attention whose heads forget by a gate of each token between query and key."""

    def __init__(self, context, options):
        super().__init__(context, options)
        D, H = context.shape.width, context.shape.heads
        self.forget, self.forget_bias = (
            weight((D, H), ("width", "heads"), fan_in=D),
            constant(H, "heads", 0.0),
        )

    def rotate(self, x_BHTK, rotary):
        return x_BHTK

    def attend_heads(self, x_BTD, rotary):
        query_BHTK, key_BGTK, value_BGTK = self.heads(x_BTD, rotary)
        gate_BTH = project(x_BTD, self.forget).astype(jnp.float32)
        log_BTH = jax.nn.log_sigmoid(gate_BTH + gather_weight(self.forget_bias, gate_BTH.dtype))
        total_BHT = jnp.cumsum(log_BTH, axis=1).swapaxes(1, 2)
        score_BHTS = attention_scores(query_BHTK, key_BGTK)
        score_BHTS = score_BHTS + total_BHT[..., :, None] - total_BHT[..., None, :]
        weight_BHTS = self.weights(score_BHTS, visible_keys(rotary))
        return weighted_values(weight_BHTS, value_BGTK).swapaxes(1, 2)
