"""Value residual: v_l = a v_l + b v_0, the values of layer 0; a = b = .5, or learned from a = 1, b = 0."""

from dataclasses import dataclass

from harness.extend import (
    GroupedOptions,
    LayerContext,
    SideOutputs,
    SoftmaxAttention,
    constant,
    gather_weight,
    project,
    register_softmax,
)


@dataclass(frozen=True, kw_only=True)
class Options(GroupedOptions):
    learned: bool = False


@register_softmax("value_residual", Options, gives=("first_BTGK",))
class ValueResidual(SoftmaxAttention):
    def __init__(self, context: LayerContext, options: Options):
        super().__init__(context, options)
        self.learned = options.learned and context.layer > 0
        if self.learned:
            self.own_share, self.first_share = constant(1, None, 1.0), constant(1, None, 0.0)

    def __call__(self, x_BTD, rotary, first_BTGK=None):
        query_BHTK, key_BGTK, value_BGTK = self.heads(x_BTD, rotary)
        if first_BTGK is None:
            side = SideOutputs(gives={"first_BTGK": value_BGTK.swapaxes(1, 2)})
            return self._output(query_BHTK, key_BGTK, value_BGTK, rotary), side
        own, first = 0.5, 0.5
        if self.learned:
            shares = (self.own_share, self.first_share)
            own, first = (gather_weight(share, value_BGTK.dtype) for share in shares)
        value_BGTK = own * value_BGTK + first * first_BTGK.swapaxes(1, 2)
        return self._output(query_BHTK, key_BGTK, value_BGTK, rotary)

    def _output(self, query_BHTK, key_BGTK, value_BGTK, rotary):
        mixed_BHTK = self.mix(query_BHTK, key_BGTK, value_BGTK, rotary)
        return project(mixed_BHTK.swapaxes(1, 2), self.output)
