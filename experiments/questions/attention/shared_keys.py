"""Shared keys and values: layers of the upper half have their own queries, and read keys and values that the
middle layer made (YOCO). The middle layer attends by them too."""

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
        if self.reads:
            query_BHTK = self.rotate(self._normalised(project(x_BTD, self.query), self.query_norm), rotary)
            heads = query_BHTK, key_BTGK.swapaxes(1, 2), value_BTGK.swapaxes(1, 2)
        else:
            heads = self.heads(x_BTD, rotary)
        y_BTD = project(self.mix(*heads, rotary).swapaxes(1, 2), self.output)
        if not self.gives:
            return y_BTD
        _, key_BGTK, value_BGTK = heads
        gives = {"key_BTGK": key_BGTK.swapaxes(1, 2), "value_BTGK": value_BGTK.swapaxes(1, 2)}
        return y_BTD, SideOutputs(gives=gives)
