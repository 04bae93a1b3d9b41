"""The base of all softmax attention: projections, norms, positions, costs.

A variant chooses the number of key-value heads and the keys that a query sees; most need nothing else.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.core.errors import UserError
from harness.models.attention.kernels.ring import mean_computed_keys_ring, ring_attention
from harness.models.attention.kernels.softmax import attend, mean_visible_keys
from harness.models.layers import RMSNorm, Rotary, gather_weight, project
from harness.models.mechanism import LayerContext, MatmulFlops
from harness.models.parameters import constant, weight
from harness.models.registry import register_attention


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Options that every softmax attention shares: transformations of the attention scores."""

    softcap: float | None = None
    """Bound of the scores: s becomes softcap tanh(s / softcap) (arXiv:2408.00118, section 2); null keeps s.
    """
    sinks: bool = False
    """Give each head a learned logit that joins the softmax without a value, so that the head can attend to
    nothing (arXiv:2309.17453, as in gpt-oss)."""


@dataclass(frozen=True, kw_only=True)
class GroupedOptions(ScoreOptions):
    """Options of attention with an optional number of key-value heads."""

    kv_heads: int | None = None
    """Number of key-value heads; null gives each query head its own."""


class SoftmaxAttention(nnx.Module):
    """Causal grouped-query attention (arXiv:2305.13245) over all keys, or over the last `window` of them."""

    def __init__(
        self,
        context: LayerContext,
        kv_heads: int | None = None,
        window: int | None = None,
        scores: ScoreOptions = ScoreOptions(),
    ):
        D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
        G = _kv_heads(context, kv_heads)
        if H % max(1, G) or G < 1:
            raise UserError(
                f"model.attention.options.kv_heads={kv_heads} does not divide the {H} heads."
                f" Choose one of {', '.join(str(g) for g in range(1, H + 1) if H % g == 0)}."
            )
        if scores.softcap is not None and scores.softcap <= 0:
            raise UserError(
                f"model.attention.options.softcap={scores.softcap} must be above 0"
                " (published: 50), or null for none."
            )
        self.window, self.softcap = window, scores.softcap
        self.query = weight((D, H, K), ("width", "heads", None), fan_in=D)
        kv_axis = "heads" if G == H else "kv_heads"
        self.key = weight((D, G, K), ("width", kv_axis, None), fan_in=D)
        self.value = weight((D, G, K), ("width", kv_axis, None), fan_in=D)
        self.output = weight((H, K, D), ("heads", None, "width"), fan_in=H * K, depth=context.shape.layers)
        norm = (lambda: RMSNorm(K, context.norm_epsilon, None)) if context.qk_norm else (lambda: None)
        self.query_norm, self.key_norm = norm(), norm()
        self.sink = constant(H, "heads", 0.0) if scores.sinks else None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Accept the old method names `mix` and `_positioned`, for one version."""
        for old, new in (("mix", "attend_heads"), ("_positioned", "_rotated")):
            if old in vars(cls):
                warnings.warn(f"'{old}' is now called '{new}'.", DeprecationWarning, stacklevel=2)
                setattr(cls, new, vars(cls)[old])
            elif new in vars(cls):
                setattr(cls, old, vars(cls)[new])
        super().__init_subclass__(**kwargs)

    def __call__(self, x_BTD: Array, rotary: Rotary) -> Array:
        return project(self.attend_heads(x_BTD, rotary), self.output)

    def attend_heads(self, x_BTD: Array, rotary: Rotary) -> Array:
        """Return the outputs of the heads before the output projection, [B, T, H, K]."""
        query_BHTK = self._rotated(project(x_BTD, self.query), self.query_norm, rotary)
        key_BGTK = self._rotated(project(x_BTD, self.key), self.key_norm, rotary)
        value_BGTK = project(x_BTD, self.value).swapaxes(1, 2)
        sink_H = None if self.sink is None else gather_weight(self.sink, jnp.dtype(jnp.float32))
        score_arguments = (self.window, self.softcap, sink_H, rotary.document_BT)
        attention = attend if rotary.sequence_shards == 1 else ring_attention
        return attention(query_BHTK, key_BGTK, value_BGTK, *score_arguments).swapaxes(1, 2)

    def _rotated(self, x_BTHK: Array, norm: RMSNorm | None, rotary: Rotary) -> Array:
        x_BHTK = x_BTHK.swapaxes(1, 2)
        return rotary(norm(x_BHTK) if norm else x_BHTK)

    mix, _positioned = attend_heads, _rotated


def model_flops(context: LayerContext, kv_heads: int | None = None, window: int | None = None) -> float:
    """Return the forward FLOPs per token: 2 per weight, and 2 products of H x K with each visible key."""
    return _projection_flops(context, kv_heads) + _mixing_flops(
        context, mean_visible_keys(context.sequence_length, window)
    )


def executed_flops(
    context: LayerContext, kv_heads: int | None = None, window: int | None = None
) -> MatmulFlops:
    """Return the executed FLOPs per token where `attend` writes out the scores (everywhere but
    `softmax.fused_attention`)."""
    keys = mean_computed_keys_ring(context.sequence_length, window, context.sequence_shards)
    mixing = _mixing_flops(context, keys)
    score_flops = mixing / 2 if context.sequence_shards > 1 else 0.0
    return MatmulFlops(weights=_projection_flops(context, kv_heads), activations=mixing, rescored=score_flops)


def cache_bytes(
    context: LayerContext, bytes_per_value: float, kv_heads: int | None = None, window: int | None = None
) -> float:
    """Return the bytes of one layer's keys and values that decoding the last token of a sequence reads."""
    cached_tokens = min(window or context.sequence_length, context.sequence_length)
    return 2 * _kv_heads(context, kv_heads) * context.shape.head_width * cached_tokens * bytes_per_value


def supports_sequence_parallel(context: LayerContext, options: ScoreOptions) -> bool:
    """Return True: ring attention works on the shards of a sequence."""
    return True


def register_softmax(
    name: str, options: type, extra_flops: Callable[[LayerContext], float] = lambda context: 0.0
) -> Callable[..., Any]:
    """Return the decorator that registers a softmax attention, with costs from its options `kv_heads` and
    `window`, if it has them; `extra_flops` are those of further products with weights, per token."""

    def limits(options: Any) -> tuple[int | None, int | None]:
        return getattr(options, "kv_heads", None), getattr(options, "window", None)

    def executed(context: LayerContext, options: Any) -> MatmulFlops:
        return executed_flops(context, *limits(options)) + MatmulFlops(weights=extra_flops(context))

    return register_attention(
        name,
        options,
        model_flops=lambda context, options: model_flops(context, *limits(options)) + extra_flops(context),
        executed_flops=executed,
        cache_bytes=lambda context, options, size: cache_bytes(context, size, *limits(options)),
        supports_sequence_parallel=supports_sequence_parallel,
    )


def _kv_heads(context: LayerContext, kv_heads: int | None) -> int:
    return context.shape.heads if kv_heads is None else kv_heads


def _projection_flops(context: LayerContext, kv_heads: int | None) -> float:
    shape = context.shape
    return 2.0 * shape.width * shape.head_width * 2 * (shape.heads + _kv_heads(context, kv_heads))


def _mixing_flops(context: LayerContext, keys: float) -> float:
    return 4.0 * context.shape.heads * context.shape.head_width * keys
