"""Backout: what the head reads loses a part of the stream after layer .7 L: x_end - w x_l, w = .5."""

from flax import nnx

from harness.extend import PreNorm, constant, gather_weight, register_block


class Backout(nnx.Module):
    def __init__(self, context, options):
        self.backout_scalar = constant(1, None, 0.5)

    def open(self, x_BTD):
        return x_BTD, None

    def close(self, stream):
        x_BTD, early_BTD = stream
        return x_BTD - gather_weight(self.backout_scalar, x_BTD.dtype) * early_BTD


@register_block("backout", stream=Backout)
class BackoutLayer(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.is_left = context.layer == min(int(0.7 * context.shape.layers), context.shape.layers - 2)

    def __call__(self, stream, attend, feed):
        x_BTD = super().__call__(stream[0], attend, feed)
        return x_BTD, x_BTD if self.is_left else stream[1]
