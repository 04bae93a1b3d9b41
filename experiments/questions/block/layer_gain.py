"""A scalar after each layer: x = c_l x, c = 1 at the start."""

from harness.extend import PreNorm, constant, gather_weight, register_block


@register_block("layer_gain", scans=True)
class LayerGain(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.layer_scalar = constant(1, None, 1.0)

    def __call__(self, x_BTD, attend, feed):
        return gather_weight(self.layer_scalar, x_BTD.dtype) * super().__call__(x_BTD, attend, feed)
