"""Short convolution of outputs: y_t = sum_(j<4) w_j y_(t-j) a channel, w = (1, 0, 0, 0) at the start, within
documents: on keys, on the output of attention, and on that of the feed-forward layer."""

from harness.extend import (
    GroupedOptions,
    ShortConvolution,
    SoftmaxAttention,
    SwiGLU,
    register_feedforward,
    register_softmax,
)


@register_softmax("output_convolution", GroupedOptions, in_steps=True)
class ConvolvedOutputs(SoftmaxAttention):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.key_convolution = ShortConvolution(self.key.shape[1:], self.key.axes[1:])
        self.convolution = ShortConvolution((context.shape.width,), ("width",))

    def project_heads(self, x_BTD, rotary):
        query_BTHK, key_BTGK, value_BTGK = super().project_heads(x_BTD, rotary)
        return query_BTHK, self.key_convolution(key_BTGK, rotary.document_BT), value_BTGK

    def __call__(self, x_BTD, rotary):
        return self.convolution(super().__call__(x_BTD, rotary), rotary.document_BT)


@register_feedforward("output_convolution")
class ConvolvedSwiGLU(SwiGLU):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.convolution = ShortConvolution((context.shape.width,), ("width",))

    def __call__(self, x_BTD, document_BT):
        return self.convolution(super().__call__(x_BTD), document_BT)
