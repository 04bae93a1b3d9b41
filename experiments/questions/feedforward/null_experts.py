"""Null experts: the router chooses among E experts and n that answer 0, or the input itself with `copy`. What
they are chosen for costs nothing in mathematics; here the rows are multiplied and weighted by 0."""

from dataclasses import dataclass

import jax.numpy as jnp

from harness.extend import LayerContext, MoE, MoEOptions, constant, register_experts, weight


@dataclass(frozen=True)
class Options(MoEOptions):
    nulls: int = 4
    copy: bool = False


def router_flops(context, options):
    return 2.0 * context.shape.width * options.nulls


@register_experts("null_experts", Options, router_flops)
class NullExperts(MoE):
    def __init__(self, context: LayerContext, options: Options):
        super().__init__(context, options)
        D, every = context.shape.width, options.experts + options.nulls
        self.copies = options.copy
        self.router = weight((D, every), ("width", None), fan_in=D)
        self.bias = constant(every, None, 0.0) if options.balance == "bias" else None

    def apply(self, x_BTD, routing):
        E = self.options.experts
        is_null_BTK = routing.chosen_BTK >= E
        share_BTK = jnp.where(is_null_BTK, 0.0, routing.share_BTK)
        own = routing._replace(chosen_BTK=routing.chosen_BTK % E, share_BTK=share_BTK)
        y_BTD, dropped = super().apply(x_BTD, own)
        if self.copies:
            null_BT1 = jnp.sum(jnp.where(is_null_BTK, routing.share_BTK, 0.0), axis=-1, keepdims=True)
            y_BTD = y_BTD + null_BT1.astype(x_BTD.dtype) * x_BTD
        return y_BTD, dropped
