"""Scalable softmax: scores *= s_h ln n, where n is the number of keys up to the query's own."""

import jax.numpy as jnp

from harness.extend import GroupedOptions, SoftmaxAttention, constant, gather_weight, register_softmax


@register_softmax("scalable_softmax", GroupedOptions, in_steps=True)
class ScalableSoftmax(SoftmaxAttention):
    """Softmax attention whose scores grow with the logarithm of the number of keys."""

    def __init__(self, context, options):
        super().__init__(context, options)
        self.rate = constant(context.shape.heads, "heads", 0.43)

    def heads(self, x_BTD, rotary):
        query_BHTK, key_BGTK, value_BGTK = super().heads(x_BTD, rotary)
        log_T1 = jnp.log(jnp.arange(x_BTD.shape[1]) + 1)[:, None].astype(query_BHTK.dtype)
        rate_H11 = gather_weight(self.rate, query_BHTK.dtype)[:, None, None]
        return query_BHTK * rate_H11 * log_T1, key_BGTK, value_BGTK
