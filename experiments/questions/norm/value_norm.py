"""Norm of values: v -> v / rms v for each head, without a gain."""

from harness.extend import GroupedOptions, SoftmaxAttention, register_softmax, rms_normalise


@register_softmax("value_norm", GroupedOptions)
class ValueNorm(SoftmaxAttention):
    """Softmax attention to directions."""

    def __init__(self, context, options):
        super().__init__(context, options)
        self.epsilon = context.norm_epsilon

    def project_heads(self, x_BTD, rotary):
        query_BTHK, key_BTGK, value_BTGK = super().project_heads(x_BTD, rotary)
        return query_BTHK, key_BTGK, rms_normalise(value_BTGK, self.epsilon).astype(value_BTGK.dtype)
