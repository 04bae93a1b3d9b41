"""Shared keys and values: layers above the middle one have queries of their own, and read the keys and values
that the middle layer made and attends by too (YOCO)."""

from harness.extend import (
    NO_PERIOD,
    GroupedOptions,
    SideOutputs,
    SoftmaxAttention,
    project,
    register_attention,
)


@register_attention(
    "shared_keys", GroupedOptions, gives=("key_BTGK", "value_BTGK"), period=lambda options: NO_PERIOD
)
class SharedKeys(SoftmaxAttention):
    def __init__(self, context, options):
        super().__init__(context, options)
        middle = context.shape.layers // 2
        self.gives, self.reads = context.layer == middle, context.layer > middle
        if self.reads:
            self.key = self.value = self.key_norm = None

    def __call__(self, x_BTD, rotary, key_BTGK=None, value_BTGK=None):
        if key_BTGK is not None and value_BTGK is not None:
            query_BHTK = self._normalised(project(x_BTD, self.query), self.query_norm)
            heads = self.rotate(query_BHTK, rotary), key_BTGK.swapaxes(1, 2), value_BTGK.swapaxes(1, 2)
        else:
            heads = self.heads(x_BTD, rotary)
        y_BTD = project(self.mix(*heads, rotary).swapaxes(1, 2), self.output)
        if not self.gives:
            return y_BTD
        _, key_BGTK, value_BGTK = heads
        gives = {"key_BTGK": key_BGTK.swapaxes(1, 2), "value_BTGK": value_BGTK.swapaxes(1, 2)}
        return y_BTD, SideOutputs(gives=gives)
