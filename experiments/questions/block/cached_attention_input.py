"""Cached attention input: in the last 3/11 of the layers attention reads N(x before them), ff reads x."""

from flax import nnx

from harness.extend import PreNorm, register_block


class Cached(nnx.Module):
    def __init__(self, context, options):
        pass

    def open(self, x_BTD):
        return x_BTD, None

    def close(self, stream):
        return stream[0]


@register_block("cached_attention_input", stream=Cached)
class CachedAttentionInput(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.first = context.shape.layers - max(2, round(3 * context.shape.layers / 11))
        self.reads_cache = context.layer >= self.first

    def __call__(self, stream, attend, feed):
        x_BTD, cached_BTD = stream
        if self.reads_cache and cached_BTD is None:
            cached_BTD = x_BTD
        x_BTD = x_BTD + attend(self.attention_norm(cached_BTD if self.reads_cache else x_BTD))
        return x_BTD + feed(self.feedforward_norm(x_BTD)), cached_BTD
