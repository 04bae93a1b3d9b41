"""Two lanes: attention reads a, ff reads b; a = r a + w1 y, b = r b + w2 y; the end is (a + b)/2."""

from flax import nnx

from harness.extend import PreNorm, constant, gather_weight, register_block


class Lanes(nnx.Module):
    def __init__(self, context, options):
        pass

    def open(self, x_BTD):
        return (x_BTD,)

    def close(self, lanes):
        return sum(lanes) / len(lanes)


@register_block("two_lanes", stream=Lanes)
class TwoLanes(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.is_split = context.layer >= 7 * context.shape.layers // 11
        if self.is_split:
            self.attention_scales, self.feedforward_scales = (constant(3, None, 1.0) for _ in range(2))

    def __call__(self, lanes, attend, feed):
        if not self.is_split:
            return (super().__call__(lanes[0], attend, feed),)
        a_BTD, b_BTD = lanes[0], lanes[-1]
        y_BTD = attend(self.attention_norm(a_BTD))
        a_BTD, b_BTD = write(a_BTD, b_BTD, y_BTD, self.attention_scales)
        return write(a_BTD, b_BTD, feed(self.feedforward_norm(b_BTD)), self.feedforward_scales)


def write(a_BTD, b_BTD, y_BTD, scales):
    r, w1, w2 = gather_weight(scales, y_BTD.dtype)
    return r * a_BTD + w1 * y_BTD, r * b_BTD + w2 * y_BTD
