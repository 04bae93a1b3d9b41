"""One norm over the queries of all heads, and one over the keys: x -> g x / rms x."""

import jax.numpy as jnp
from jax import lax

from harness.extend import GroupedOptions, SoftmaxAttention, gain, gather_weight, register_softmax


@register_softmax("joint_head_norm", GroupedOptions)
class JointHeadNorm(SoftmaxAttention):
    """Softmax attention whose heads keep their sizes relative to each other."""

    def __init__(self, context, options):
        super().__init__(context, options)
        self.query_norm = self.key_norm = None
        self.query_gain, self.key_gain = (gain(context.shape.head_width, None) for _ in range(2))
        self.epsilon = context.norm_epsilon

    def project_heads(self, x_BTD, rotary):
        query_BTHK, key_BTGK, value_BTGK = super().project_heads(x_BTD, rotary)
        return (
            self.normalised(query_BTHK, self.query_gain),
            self.normalised(key_BTGK, self.key_gain),
            value_BTGK,
        )

    def normalised(self, x_BTHK, gain):
        wide_BTHK = x_BTHK.astype(jnp.float32)
        square_BT11 = jnp.mean(jnp.square(wide_BTHK), axis=(2, 3), keepdims=True)
        gain_K = gather_weight(gain, wide_BTHK.dtype)
        return (gain_K * wide_BTHK * lax.rsqrt(square_BT11 + self.epsilon)).astype(x_BTHK.dtype)
