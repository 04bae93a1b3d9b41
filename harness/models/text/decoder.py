"""The decoder: embedding, layers (a loop or a scan), norm, head."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.config.schema.run import ComputeConfig, Layers
from harness.models.layer_stack import through
from harness.models.layers import DTYPES, RMSNorm, Rotary, gathered, product
from harness.models.mechanism import Signals
from harness.models.model_spec import Blueprint
from harness.models.mup import relative_width
from harness.models.parameters import Stacking, weight
from harness.parallel.sharding.axis_rules import layout, partition
from harness.parallel.sharding.sequence_parallel import on_each, part, parts, whole


class Layer(nnx.Module):
    """Pre-norm residual layer: attention, then feed-forward."""

    def __init__(self, blueprint: Blueprint, layer: int):
        site = blueprint.site(layer)
        self.attention_splits = blueprint.attention.splits(site)
        self.feedforward_splits = blueprint.feedforward.splits(site)
        self.attention_norm = RMSNorm(site.shape.width, site.norm_epsilon)
        self.attention = blueprint.attention.module(site)
        self.feedforward_norm = RMSNorm(site.shape.width, site.norm_epsilon)
        self.feedforward = blueprint.feedforward.module(site)

    def __call__(self, x_BTD: Array, rotary: Rotary) -> tuple[Array, Signals | None]:
        x_BTD = x_BTD + self._attended(self.attention_norm(x_BTD), rotary)
        y_BTD, signals = self._fed_forward(self.feedforward_norm(x_BTD))
        return x_BTD + y_BTD, signals

    def _attended(self, x_BTD: Array, rotary: Rotary) -> Array:
        """`rotary` is of the whole sequence, x and the answer of the part that is here."""
        if self.attention_splits:
            return self.attention(x_BTD, rotary.of_part())
        return part(self.attention(whole(x_BTD), rotary))

    def _fed_forward(self, x_BTD: Array) -> tuple[Array, Signals | None]:
        answer = self.feedforward(x_BTD if self.feedforward_splits else whole(x_BTD))
        y_BTD, signals = answer if isinstance(answer, tuple) else (answer, None)
        return y_BTD if self.feedforward_splits else part(y_BTD), signals


def _rows(table_VD: Array, tokens_BT: Array) -> Array:
    if parts() == 1:
        return table_VD.at[tokens_BT].get(out_sharding=layout("batch", None, None))
    # What `get` does inside, JAX 0.10 refuses where some axes are manual and some explicit.
    specs = (partition(None, None), partition("batch", None))
    return on_each(lambda table_VD, tokens_BT: table_VD[tokens_BT], specs, partition("batch", None, None))(
        table_VD, tokens_BT
    )


def documents(tokens_BT: Array, end: int) -> Array:
    """Which document each token is in, int32 [B, T]; the token that ends one is its last."""
    ends_BT = (tokens_BT == end).astype(jnp.int32)
    return jnp.cumsum(ends_BT, axis=1) - ends_BT


class Decoder(nnx.Module):
    """Tokens [B, T] in; float32 logits [B, T, V] out, and the signals of feed-forward layers that give any,
    by the stored path of the layer."""

    def __init__(self, blueprint: Blueprint, compute: ComputeConfig):
        config, shape = blueprint.config, blueprint.shape
        V, D = shape.vocabulary, shape.width
        self.dtype, self.remat = DTYPES[compute.precision], compute.remat
        self.head_width, self.rope_base = shape.head_width, config.rope_base
        self.end = blueprint.end
        self.relative_width = relative_width(config, D)
        scan = compute.layers is Layers.scanned
        self.stacking = Stacking(blueprint.period, shape.layers // blueprint.period if scan else 0)
        self.embedding = weight((V, D), ("vocabulary", "width"), fan_in=D)
        self.repeats = nnx.List(
            Layer(blueprint, layer) for layer in range(self.stacking.period) if self.stacking.repeats
        )
        self.layers = nnx.List(
            Layer(blueprint, layer) for layer in range(self.stacking.covered, shape.layers)
        )
        self.norm = RMSNorm(D, config.norm_epsilon)
        self.head = None if config.tie_embeddings else weight((V, D), ("vocabulary", "width"), fan_in=D)

    def __call__(self, tokens_BT: Array) -> tuple[Array, dict[str, Signals]]:
        documents_BT = None if self.end is None else documents(whole(tokens_BT), self.end)
        rotary = Rotary.table(parts() * tokens_BT.shape[1], self.head_width, self.rope_base, documents_BT)
        x_BTD, signals = through(self.repeats, self.layers, self._embed(tokens_BT), rotary, self.remat)
        return self._logits(self.norm(x_BTD)), signals

    def _embed(self, tokens_BT: Array) -> Array:
        table_VD = gathered(self.embedding, self.dtype)
        if layout() is not None:
            table_VD = jax.reshard(table_VD, layout(None, None))
        return self._times(_rows(table_VD, tokens_BT), self.relative_width**0.5)

    def _logits(self, x_BTD: Array) -> Array:
        table_VD = gathered(self.embedding if self.head is None else self.head, self.dtype)
        B, T, D = x_BTD.shape
        x_BTD = self._times(x_BTD, self.relative_width**-0.5)
        x_ND = jnp.reshape(x_BTD, (B * T, D), out_sharding=layout("batch", None))
        logits_NV = product(x_ND, table_VD.T, (None, "vocabulary"), jnp.dtype(jnp.float32))
        return jnp.reshape(logits_NV, (B, T, -1), out_sharding=layout("batch", None, "vocabulary"))

    def _times(self, x_BTD: Array, factor: float) -> Array:
        """The multipliers of `models.mup`; at the base width the program is the one without them."""
        return x_BTD if self.relative_width == 1 else x_BTD * factor
