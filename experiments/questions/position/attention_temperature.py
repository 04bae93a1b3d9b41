"""Temperature by position: q_t *= 1 + .1 ln(1 + floor((t + 1) / every)), in layers without rotation."""

from dataclasses import dataclass

import jax.numpy as jnp

from harness.extend import GroupedOptions, SoftmaxAttention, register_softmax


@dataclass(frozen=True, kw_only=True)
class Options(GroupedOptions):
    every: int = 8192
    """Tokens after which the temperature falls again."""
    rate: float = 0.1


@register_softmax("attention_temperature", Options, in_steps=True)
class AttentionTemperature(SoftmaxAttention):
    """Softmax attention without positions, the sharper the later the query."""

    def __init__(self, context, options: Options):
        super().__init__(context, options)
        self.options = options

    def rotate(self, x_BHTK, rotary):
        return x_BHTK

    def heads(self, x_BTD, rotary):
        query_BHTK, key_BGTK, value_BGTK = super().heads(x_BTD, rotary)
        step_T = jnp.floor((jnp.arange(x_BTD.shape[1]) + 1) / self.options.every)
        factor_T1 = (1 + self.options.rate * jnp.log(1 + step_T))[:, None]
        return query_BHTK * factor_T1.astype(query_BHTK.dtype), key_BGTK, value_BGTK
