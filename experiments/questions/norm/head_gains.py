"""Learned gain of each head's queries: q_h -> g_h q_h."""

from dataclasses import dataclass

from harness.extend import GroupedOptions, SoftmaxAttention, constant, gather_weight, register_softmax


@dataclass(frozen=True, kw_only=True)
class Options(GroupedOptions):
    start: float = 5.25


@register_softmax("head_gains", Options)
class HeadGains(SoftmaxAttention):
    """Softmax attention whose heads learn how sharp they are."""

    def __init__(self, context, options):
        super().__init__(context, options)
        self.gain = constant(context.shape.heads, "heads", options.start)

    def heads(self, x_BTD, rotary):
        query_BHTK, key_BGTK, value_BGTK = super().heads(x_BTD, rotary)
        gain_H = gather_weight(self.gain, query_BHTK.dtype)
        return gain_H[:, None, None] * query_BHTK, key_BGTK, value_BGTK
