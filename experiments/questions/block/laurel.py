"""LAuReL: h = N(x), x' = (x + N2(attn h) + h + N3(h A B)) / sqrt 2 with A B of low rank; then ff as ever."""

from dataclasses import dataclass

from harness.extend import PreNorm, project, register_block, weight


@dataclass(frozen=True)
class Options:
    rank: int = 64


@register_block("laurel", Options, scans=True)
class Laurel(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        D, R = context.shape.width, options.rank
        self.attention_output_norm, self.laurel_norm = context.norm(D), context.norm(D)
        self.down = weight((D, R), ("width", None), fan_in=D)
        self.up = weight((R, D), (None, "width"), fan_in=R)

    def __call__(self, x_BTD, attend, feed):
        h_BTD = self.attention_norm(x_BTD)
        y_BTD = self.attention_output_norm(attend(h_BTD))
        laurel_BTD = h_BTD + self.laurel_norm(project(project(h_BTD, self.down), self.up))
        x_BTD = (x_BTD + y_BTD + laurel_BTD) * 2**-0.5
        return x_BTD + feed(self.feedforward_norm(x_BTD))
