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
    register_attention,
)


@dataclass(frozen=True, kw_only=True)
class Options(GroupedOptions):
    learned: bool = False


@register_attention("value_residual", Options, gives=("value_BTGK",))
class ValueResidual(SoftmaxAttention):
    def __init__(self, context: LayerContext, options: Options):
        super().__init__(context, options)
        later = context.layer > 0 and options.learned
        self.own, self.first = (constant(1, None, x) if later else None for x in (1.0, 0.0))

    def __call__(self, x_BTD, rotary, value_BTGK=None):
        query_BHTK, key_BGTK, value_BGTK = self.heads(x_BTD, rotary)
        if value_BTGK is None:
            gives = SideOutputs(gives={"value_BTGK": value_BGTK.swapaxes(1, 2)})
            return project(
                self.mix(query_BHTK, key_BGTK, value_BGTK, rotary).swapaxes(1, 2), self.output
            ), gives
        value_BGTK = self._mixed(value_BGTK, value_BTGK.swapaxes(1, 2))
        return project(self.mix(query_BHTK, key_BGTK, value_BGTK, rotary).swapaxes(1, 2), self.output)

    def _mixed(self, value_BGTK, first_BGTK):
        if self.own is None:
            return 0.5 * (value_BGTK + first_BGTK)
        own, first = (gather_weight(share, value_BGTK.dtype) for share in (self.own, self.first))
        return own * value_BGTK + first * first_BGTK
