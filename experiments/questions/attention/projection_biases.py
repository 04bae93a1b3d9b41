"""Biases of attention: q = x W + b, likewise k, v and the output, b = 0 at the start and without decay."""

from harness.extend import (
    GroupedOptions,
    LayerContext,
    SoftmaxAttention,
    gather_weight,
    register_softmax,
    zeros,
)


@register_softmax("projection_biases", GroupedOptions)
class ProjectionBiases(SoftmaxAttention):
    def __init__(self, context: LayerContext, options: GroupedOptions):
        super().__init__(context, options)
        H, K = context.shape.heads, context.shape.head_width
        G = options.kv_heads or H
        self.query_bias, self.key_bias, self.value_bias = (
            zeros((heads, K), ("heads", None)) for heads in (H, G, G)
        )
        self.output_bias = zeros((context.shape.width,), ("width",))

    def project_heads(self, x_BTD, rotary):
        heads = super().project_heads(x_BTD, rotary)
        biases = (self.query_bias, self.key_bias, self.value_bias)
        return tuple(x + gather_weight(bias, x.dtype) for x, bias in zip(heads, biases, strict=True))

    def __call__(self, x_BTD, rotary):
        y_BTD = super().__call__(x_BTD, rotary)
        return y_BTD + gather_weight(self.output_bias, y_BTD.dtype)
