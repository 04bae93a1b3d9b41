"""Scalars on stream and branch: x = a x + c f(N(x)), a = 1.1^.5 and c = 1 at the start."""

from harness.extend import PreNorm, constant, gather_weight, register_block


@register_block("branch_scalars", scans=True)
class BranchScalars(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.stream_scalars, self.branch_scalars = constant(2, None, 1.1**0.5), constant(2, None, 1.0)

    def __call__(self, x_BTD, attend, feed):
        a, c = (gather_weight(scalars, x_BTD.dtype) for scalars in (self.stream_scalars, self.branch_scalars))
        x_BTD = a[0] * x_BTD + c[0] * attend(self.attention_norm(x_BTD))
        return a[1] * x_BTD + c[1] * feed(self.feedforward_norm(x_BTD))
