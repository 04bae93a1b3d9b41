"""Partial key offset: pairs of a key that do not turn are the pairs of the token before it, k_t = k_(t-1)."""

from dataclasses import dataclass, replace

import jax.numpy as jnp

from harness.extend import GroupedOptions, SoftmaxAttention, register_softmax, shift_time


@dataclass(frozen=True, kw_only=True)
class Options(GroupedOptions):
    share: float = 0.5
    """Share of the pairs that turn."""


@register_softmax("partial_key_offset", Options, in_steps=True)
class PartialKeyOffset(SoftmaxAttention):
    """Softmax attention in which a query finds a token by the one before it."""

    def __init__(self, context, options: Options):
        super().__init__(context, options)
        pairs = context.shape.head_width // 2
        self.turned = max(1, round(options.share * pairs))

    def rotate(self, x_BHTK, rotary):
        turns_J = jnp.arange(rotary.cos_TJ.shape[1]) < self.turned
        cos_TJ, sin_TJ = jnp.where(turns_J, rotary.cos_TJ, 1.0), jnp.where(turns_J, rotary.sin_TJ, 0.0)
        return replace(rotary, cos_TJ=cos_TJ, sin_TJ=sin_TJ)(x_BHTK)

    def heads(self, x_BTD, rotary):
        query_BHTK, key_BGTK, value_BGTK = super().heads(x_BTD, rotary)
        width = key_BGTK.shape[-1]
        is_still_K = jnp.arange(width) % (width // 2) >= self.turned
        earlier_BGTK = shift_time(key_BGTK.swapaxes(1, 2), 1, rotary.document_BT).swapaxes(1, 2)
        return query_BHTK, jnp.where(is_still_K, earlier_BGTK, key_BGTK), value_BGTK
