"""Feed-forward inputs that shrink with depth: x + ff((1 - .3 l / (L - 1)) N(x))."""

from harness.extend import PreNorm, register_block


@register_block("feedforward_input_by_depth")
class FeedforwardInputByDepth(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.factor = 1 - 0.3 * context.layer / max(1, context.shape.layers - 1)

    def __call__(self, x_BTD, attend, feed):
        return super().__call__(x_BTD, attend, lambda read_BTD: feed(self.factor * read_BTD))
