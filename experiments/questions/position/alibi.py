"""ALiBi: instead of a rotation, score_hts -= 2^(-8h/H) (t - s)."""

import jax.numpy as jnp

from harness.extend import (
    GroupedOptions,
    SoftmaxAttention,
    attention_scores,
    register_softmax,
    visible_keys,
    weighted_values,
)


@register_softmax("alibi", GroupedOptions, in_steps=True)
class Alibi(SoftmaxAttention):
    """Softmax attention whose scores fall with distance."""

    def rotate(self, x_BHTK, rotary):
        return x_BHTK

    def mix(self, query_BHTK, key_BGTK, value_BGTK, rotary):
        _, H, T, _ = query_BHTK.shape
        slope_H = 2.0 ** (-8 * (jnp.arange(H) + 1) / H)
        distance_TS = jnp.arange(T)[:, None] - jnp.arange(T)
        score_BHTS = attention_scores(query_BHTK, key_BGTK) - slope_H[:, None, None] * distance_TS
        return weighted_values(self.weights(score_BHTS, visible_keys(rotary)), value_BGTK)
