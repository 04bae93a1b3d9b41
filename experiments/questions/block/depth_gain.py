"""LayerNorm scaling: x + f(N(x) / sqrt(l + 1)), so that late layers do not add ever less."""

from harness.extend import PreNorm, register_block


@register_block("depth_gain")
class DepthGain(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.factor = (context.layer + 1) ** -0.5

    def __call__(self, x_BTD, attend, feed):
        x_BTD = x_BTD + attend(self.factor * self.attention_norm(x_BTD))
        return x_BTD + feed(self.factor * self.feedforward_norm(x_BTD))
