"""Post-norm: N(x + f(x)), the norm on the stream itself."""

from harness.extend import PreNorm, register_block


@register_block("post_norm", scans=True)
class PostNorm(PreNorm):
    def __call__(self, x_BTD, attend, feed):
        x_BTD = self.attention_norm(x_BTD + attend(x_BTD))
        return self.feedforward_norm(x_BTD + feed(x_BTD))
