"""The base of all softmax attention: projections, norms, positions, costs.

A variant chooses the number of key-value heads and the keys that a query sees; most need nothing else. Others
override one step: `project_heads`, `rotate`, `heads`, `mix` or `attend_heads`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.core.errors import UserError
from harness.models.attention.kernels.choice import (
    ScoreShape,
    attention_function,
    choose_attention,
    executed_mixing,
)
from harness.models.attention.kernels.scores import softmax_weights
from harness.models.attention.kernels.softmax import mean_visible_keys
from harness.models.layers import Rotary, gather_weight, project
from harness.models.mechanism import LayerContext, MatmulFlops
from harness.models.norms.norm_registry import Norm
from harness.models.parameters import constant, weight
from harness.models.registry import register_attention


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Options that every softmax attention shares: transformations of the attention scores."""

    softcap: float | None = None
    """Bound of the scores: s becomes softcap tanh(s / softcap) (arXiv:2408.00118, section 2); null: none."""
    sinks: bool = False
    """Give each head a learned logit that joins the softmax without a value, so that the head can attend to
    nothing (arXiv:2309.17453, as in gpt-oss)."""


@dataclass(frozen=True, kw_only=True)
class GroupedOptions(ScoreOptions):
    """Options of attention with an optional number of key-value heads."""

    kv_heads: int | None = None
    """Number of key-value heads; null gives each query head its own."""


class SoftmaxAttention(nnx.Module):
    """Causal grouped-query attention (arXiv:2305.13245) with the `kv_heads` and `window` of its options: over
    all keys, and with a key-value head for each query head, if the options lack them."""

    def __init__(self, context: LayerContext, options: ScoreOptions = ScoreOptions()):
        D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
        G = _kv_heads(context, options)
        if H % max(1, G) or G < 1:
            raise UserError(
                f"model.attention.options.kv_heads={G} does not divide the {H} heads."
                f" Choose one of {', '.join(str(g) for g in range(1, H + 1) if H % g == 0)}."
            )
        if options.softcap is not None and options.softcap <= 0:
            raise UserError(
                f"model.attention.options.softcap={options.softcap} must be above 0"
                " (published: 50), or null for none."
            )
        self.window, self.softcap = _window(options), options.softcap
        self.query = weight((D, H, K), ("width", "heads", None), fan_in=D)
        kv_axis = "heads" if G == H else "kv_heads"
        self.key = weight((D, G, K), ("width", kv_axis, None), fan_in=D)
        self.value = weight((D, G, K), ("width", kv_axis, None), fan_in=D)
        self.output = weight((H, K, D), ("heads", None, "width"), fan_in=H * K, depth=context.shape.layers)
        norm = (lambda: context.norm(K, None)) if context.qk_norm else (lambda: None)
        self.query_norm, self.key_norm = norm(), norm()
        self.sink = constant(H, "heads", 0.0) if options.sinks else None
        self.kernel = choose_attention(context, _scores(context, options))

    def __call__(self, x_BTD: Array, rotary: Rotary) -> Array:
        """Map [B, T, D] to [B, T, D]."""
        return project(self.attend_heads(x_BTD, rotary), self.output)

    def attend_heads(self, x_BTD: Array, rotary: Rotary) -> Array:
        """Return the outputs of the heads before the output projection, [B, T, H, K]."""
        return self.mix(*self.heads(x_BTD, rotary), rotary).swapaxes(1, 2)

    def heads(self, x_BTD: Array, rotary: Rotary) -> tuple[Array, Array, Array]:
        """Return queries [B, H, T, K], keys and values [B, G, T, K], normalised and rotated."""
        query_BTHK, key_BTGK, value_BTGK = self.project_heads(x_BTD, rotary)
        query_BHTK = self._normalised(query_BTHK, self.query_norm)
        key_BGTK = self._normalised(key_BTGK, self.key_norm)
        return self.rotate(query_BHTK, rotary), self.rotate(key_BGTK, rotary), value_BTGK.swapaxes(1, 2)

    def project_heads(self, x_BTD: Array, rotary: Rotary) -> tuple[Array, ...]:
        """Return queries [B, T, H, K], keys and values [B, T, G, K] as they are projected. `rotary` tells the
        documents."""
        return project(x_BTD, self.query), project(x_BTD, self.key), project(x_BTD, self.value)

    def rotate(self, x_BHTK: Array, rotary: Rotary) -> Array:
        """Rotate queries or keys by their positions."""
        return rotary(x_BHTK)

    def mix(self, query_BHTK: Array, key_BGTK: Array, value_BGTK: Array, rotary: Rotary) -> Array:
        """Return the values [B, H, T, K], mixed by the softmax of the scores."""
        sink_H = None if self.sink is None else gather_weight(self.sink, jnp.dtype(jnp.float32))
        score_arguments = (self.window, self.softcap, sink_H, rotary.document_BT)
        attention = attention_function(self.kernel, rotary.sequence_shards)
        return attention(query_BHTK, key_BGTK, value_BGTK, *score_arguments)

    def weights(self, score_BHTS: Array, visible_BHTS: Array) -> Array:
        """Return the softmax of written-out scores, capped and with sinks if the options say so."""
        sink_H = None if self.sink is None else gather_weight(self.sink, score_BHTS.dtype)
        return softmax_weights(score_BHTS, visible_BHTS, self.softcap, sink_H)

    def _normalised(self, x_BTHK: Array, norm: Norm | None) -> Array:
        x_BHTK = x_BTHK.swapaxes(1, 2)
        return norm(x_BHTK) if norm else x_BHTK


def model_flops(context: LayerContext, options: ScoreOptions) -> float:
    """Return the forward FLOPs per token: 2 per weight, and 2 products of H x K with each visible key."""
    keys = mean_visible_keys(context.sequence_length, _window(options))
    return _projection_flops(context, options) + _mixing_flops(context, keys)


def executed_flops(context: LayerContext, options: ScoreOptions) -> MatmulFlops:
    """Return the executed FLOPs per token, by the kernel that computes the scores."""
    weights = MatmulFlops(weights=_projection_flops(context, options))
    return weights + executed_mixing(context, _scores(context, options))


def cache_bytes(context: LayerContext, options: ScoreOptions, bytes_per_value: float) -> float:
    """Return the bytes of one layer's keys and values that decoding the last token of a sequence reads."""
    cached_tokens = min(_window(options) or context.sequence_length, context.sequence_length)
    return 2 * _kv_heads(context, options) * context.shape.head_width * cached_tokens * bytes_per_value


def register_softmax(
    name: str,
    options: type,
    extra_flops: Callable[[LayerContext, Any], float] = lambda context, options: 0.0,
    *,
    in_steps: bool = False,
    **facts: Any,
) -> Callable[..., Any]:
    """Return the decorator that registers a softmax attention, with the costs of its options; `extra_flops`
    are those of further products with weights, per token. `in_steps`: its `mix` is written out in the steps
    of `kernels.scores`, or it reads positions or earlier tokens, so it gets full sequences and what it
    executes is counted. `facts` are more fields of `Mechanism`."""
    execution: dict[str, Any] = {
        "executed_flops": lambda context, options: (
            executed_flops(context, options) + MatmulFlops(weights=extra_flops(context, options))
        ),
        "supports_sequence_parallel": lambda context, options: True,  # by ring attention
        "kernel": lambda context, options: choose_attention(context, _scores(context, options)),
    }
    return register_attention(
        name,
        options,
        model_flops=lambda context, options: model_flops(context, options) + extra_flops(context, options),
        cache_bytes=cache_bytes,
        **({} if in_steps else execution),
        **facts,
    )


def _kv_heads(context: LayerContext, options: ScoreOptions) -> int:
    kv_heads = getattr(options, "kv_heads", None)
    return context.shape.heads if kv_heads is None else kv_heads


def _scores(context: LayerContext, options: ScoreOptions) -> ScoreShape:
    width = context.shape.head_width
    return ScoreShape(width, width, _window(options), options.softcap)


def _window(options: ScoreOptions) -> int | None:
    return getattr(options, "window", None)


def _projection_flops(context: LayerContext, options: ScoreOptions) -> float:
    shape = context.shape
    return 2.0 * shape.width * shape.head_width * 2 * (shape.heads + _kv_heads(context, options))


def _mixing_flops(context: LayerContext, keys: float) -> float:
    return 4.0 * context.shape.heads * context.shape.head_width * keys
