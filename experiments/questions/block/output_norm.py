"""Output norm: x + N(f(x)), the norm after each branch instead of before it."""

from harness.extend import PreNorm, register_block


@register_block("output_norm", scans=True)
class OutputNorm(PreNorm):
    def __call__(self, x_BTD, attend, feed):
        x_BTD = x_BTD + self.attention_norm(attend(x_BTD))
        return x_BTD + self.feedforward_norm(feed(x_BTD))
