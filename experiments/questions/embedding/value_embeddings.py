"""Value embeddings: in every second layer v += 2 sigmoid(w.x[:12]) V_l[t], V_l a table of the layer."""

from dataclasses import dataclass

import jax

from harness.extend import (
    GroupedOptions,
    SoftmaxAttention,
    gather_weight,
    lookup,
    project,
    register_attention,
    weight,
    zeros,
)


@dataclass(frozen=True)
class Options(GroupedOptions):
    inputs: int = 12
    """First values of x that the gate reads."""


@register_attention("value_embeddings", Options, period=lambda options: 2)
class ValueEmbeddings(SoftmaxAttention):
    def __init__(self, context, options):
        super().__init__(context, options)
        G, K = options.kv_heads or context.shape.heads, context.shape.head_width
        self.has_rows = context.layer % 2 == 0
        if self.has_rows:
            shape, axes = (context.shape.vocabulary, G * K), ("vocabulary", None)
            self.value_rows = weight(shape, axes, fan_in=context.shape.width)
            self.gate = zeros((options.inputs, G), (None, None))

    def __call__(self, x_BTD, rotary, tokens_BT):
        query_BHTK, key_BGTK, value_BGTK = self.heads(x_BTD, rotary)
        if self.has_rows:
            value_BGTK = value_BGTK + self._rows(x_BTD, tokens_BT).swapaxes(1, 2)
        mixed_BHTK = self.mix(query_BHTK, key_BGTK, value_BGTK, rotary)
        return project(mixed_BHTK.swapaxes(1, 2), self.output)

    def _rows(self, x_BTD, tokens_BT):
        gate = gather_weight(self.gate, x_BTD.dtype)
        gate_BTG = 2 * jax.nn.sigmoid(x_BTD[..., : len(gate)] @ gate)
        row_BTD = lookup(self.value_rows, tokens_BT, x_BTD.dtype)
        return gate_BTG[..., None] * row_BTD.reshape(*gate_BTG.shape, -1)
