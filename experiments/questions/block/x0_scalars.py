"""Scalars on the stream: x = a_l x + b_l x0 before each layer, a = 1 and b = .1 at the start."""

from harness.extend import PreNorm, constant, gather_weight, register_block


@register_block("x0_scalars", scans=True)
class X0Scalars(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.stream_scalar, self.embedding_scalar = constant(1, None, 1.0), constant(1, None, 0.1)

    def __call__(self, x_BTD, attend, feed, x0_BTD):
        stream, embedding = (
            gather_weight(s, x_BTD.dtype) for s in (self.stream_scalar, self.embedding_scalar)
        )
        return super().__call__(stream * x_BTD + embedding * x0_BTD, attend, feed)
