"""Late parallel branches: x + attn(N(x)) + ff(N(x)) in layers l >= share L, one after the other before."""

from dataclasses import dataclass

from harness.extend import PreNorm, register_block


@dataclass(frozen=True)
class Options:
    share: float = 7 / 11
    """Share of the layers before the first parallel one."""


@register_block("late_parallel", Options)
class LateParallel(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.is_parallel = context.layer >= int(options.share * context.shape.layers)
        if self.is_parallel:
            self.feedforward_norm = None

    def __call__(self, x_BTD, attend, feed):
        if not self.is_parallel:
            return super().__call__(x_BTD, attend, feed)
        read_BTD = self.attention_norm(x_BTD)
        return x_BTD + attend(read_BTD) + feed(read_BTD)
