"""U-net skips: outputs of the first L/2 layers are pushed, and popped in the second half: x += w s, w = 1."""

from flax import nnx

from harness.extend import PreNorm, constant, gather_weight, register_block


class Skips(nnx.Module):
    def __init__(self, context, options):
        pass

    def open(self, x_BTD):
        return x_BTD, ()

    def close(self, stream):
        return stream[0]


@register_block("u_net_skips", stream=Skips)
class UNetSkips(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        layer, half = context.layer, context.shape.layers // 2
        self.pushes, self.pops = layer < half, layer >= context.shape.layers - half
        if self.pops:
            self.skip_scalar = constant(1, None, 1.0)

    def __call__(self, stream, attend, feed):
        x_BTD, skips = stream
        if self.pops:
            x_BTD = x_BTD + gather_weight(self.skip_scalar, x_BTD.dtype) * skips[-1]
            skips = skips[:-1]
        x_BTD = super().__call__(x_BTD, attend, feed)
        return x_BTD, (*skips, x_BTD) if self.pushes else skips
