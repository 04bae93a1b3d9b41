"""Fixed factor on normalised queries: q -> 1.3 q."""

from dataclasses import dataclass

from harness.extend import GroupedOptions, SoftmaxAttention, register_softmax


@dataclass(frozen=True, kw_only=True)
class Options(GroupedOptions):
    factor: float = 1.3


@register_softmax("query_factor", Options)
class QueryFactor(SoftmaxAttention):
    """Softmax attention with sharper scores."""

    def __init__(self, context, options):
        super().__init__(context, options)
        self.factor = options.factor

    def heads(self, x_BTD, rotary):
        query_BHTK, key_BGTK, value_BGTK = super().heads(x_BTD, rotary)
        return self.factor * query_BHTK, key_BGTK, value_BGTK
