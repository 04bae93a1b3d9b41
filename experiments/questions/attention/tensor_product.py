"""Tensor product attention: q_h = (1/R) sum_r a_r(x)_h b_r(x), likewise k and v, with ranks 6, 2, 2."""

from dataclasses import dataclass

import jax.numpy as jnp

from harness.extend import LayerContext, ScoreOptions, SoftmaxAttention, project, register_attention, weight


@dataclass(frozen=True, kw_only=True)
class Options(ScoreOptions):
    query_rank: int = 6
    rank: int = 2
    """Rank of keys and of values."""


@register_attention("tensor_product", Options)
class TensorProduct(SoftmaxAttention):
    def __init__(self, context: LayerContext, options: Options):
        super().__init__(context, options)
        D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
        for name, R in (("query", options.query_rank), ("key", options.rank), ("value", options.rank)):
            setattr(self, name, weight((D, H, R), ("width", "heads", None), fan_in=D))
            setattr(self, f"{name}_factor", weight((D, R, K), ("width", None, None), fan_in=D))

    def project_heads(self, x_BTD, rotary):
        return tuple(self._product(x_BTD, name) for name in ("query", "key", "value"))

    def _product(self, x_BTD, name):
        heads_BTHR = project(x_BTD, getattr(self, name))
        factor_BTRK = project(x_BTD, getattr(self, f"{name}_factor"))
        return jnp.einsum("bthr,btrk->bthk", heads_BTHR, factor_BTRK) / factor_BTRK.shape[2]
