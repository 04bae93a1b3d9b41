"""Choice of the kernel that computes softmax attention, and what it costs.

| platform | kernel | carries |
|---|---|---|
| tpu | splash (Pallas, in JAX) | windows, documents, softcap, sinks; sequences in multiples of 128 |
| cuda | cuDNN | windows, documents, sinks; bfloat16, head widths in multiples of 8 up to 128 |

A sequence that is split over devices takes the ring, which is written out on every platform.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jax import Array

from harness.config.schema.run import Precision
from harness.models.attention.kernels import cudnn, splash
from harness.models.attention.kernels.ring import mean_computed_keys_ring, ring_attention
from harness.models.attention.kernels.softmax import attend
from harness.models.kernels import KernelChoice, choose_kernel
from harness.models.mechanism import LayerContext, MatmulFlops

PART, SPLASH, CUDNN = "attention", "splash", "cuDNN"

AttentionFunction = Callable[..., Array]
"""Function of query, key, value, window, softcap, sinks and documents, as `softmax.attend`."""


@dataclass(frozen=True)
class ScoreShape:
    """Widths of a head, and the options of its scores, that a kernel has to carry."""

    score_width: int
    """Width of a head's queries and keys."""
    value_width: int
    window: int | None = None
    softcap: float | None = None


def choose_attention(context: LayerContext, scores: ScoreShape) -> KernelChoice:
    """Return the kernel of a layer. Raises UserError if the config asks for one that lacks something."""
    platform = context.target.platform
    fused = {"tpu": SPLASH, "cuda": CUDNN}.get(platform, "")
    if not fused:
        lacks = f"cluster.platform={platform} has no fused attention here"
    elif context.sequence_shards > 1:
        lacks = f"mesh.context={context.sequence_shards} passes the keys round a ring, which is written out"
    elif fused == SPLASH:
        lacks = _splash_lacks(context)
    else:
        lacks = _cudnn_lacks(context, scores)
    return choose_kernel(context.target, PART, fused, lacks)


def _splash_lacks(context: LayerContext) -> str:
    length = context.sequence_length
    if length % splash.LANES:
        return f"splash needs data.sequence_length={length} to be a multiple of {splash.LANES}"
    return ""


def _cudnn_lacks(context: LayerContext, scores: ScoreShape) -> str:
    if context.target.dtype is not Precision.bfloat16:
        return f"cuDNN's attention computes in bfloat16, not compute.dtype={context.target.dtype.value}"
    if scores.softcap is not None:
        return f"cuDNN's attention has no softcap, which is {scores.softcap:g}"
    if scores.score_width % 8 or scores.score_width > cudnn.WIDEST_HEAD:
        widths = f"multiples of 8 up to {cudnn.WIDEST_HEAD}"
        return f"cuDNN's attention takes head widths that are {widths}, not {scores.score_width}"
    if context.documents and context.sequence_length % 2:
        return f"cuDNN masks documents in even sequences, not data.sequence_length={context.sequence_length}"
    return ""


def attention_function(choice: KernelChoice, sequence_shards: int) -> AttentionFunction:
    """Return the function that computes attention, for a sequence that so many devices share."""
    if sequence_shards > 1:
        return ring_attention
    return {SPLASH: splash.splash_attention, CUDNN: cudnn.cudnn_attention}.get(choice.name, attend)


def executed_mixing(context: LayerContext, scores: ScoreShape) -> MatmulFlops:
    """Return the FLOPs per token of the two products between activations. Kernels skip blocks that no query
    sees, and their gradients multiply again what they did not save: splash two score products and one with
    the values, cuDNN and the ring one score product. cuDNN's blocks are taken to be splash's smallest; its
    values are as wide as its keys."""
    choice, length, window = choose_attention(context, scores), context.sequence_length, scores.window
    if choice.fused:
        block = splash.block_size(length) if choice.name == SPLASH else splash.LANES
        keys = splash.mean_computed_keys(length, window, block)
    else:
        keys = mean_computed_keys_ring(length, window, context.sequence_shards)
    value_width = scores.score_width if choice.name == CUDNN else scores.value_width
    heads = context.shape.heads
    score, value = 2.0 * heads * scores.score_width * keys, 2.0 * heads * value_width * keys
    saves_scores = not choice.fused and context.sequence_shards == 1
    rescored = 0.0 if saves_scores else 2 * score + value if choice.name == SPLASH else score
    return MatmulFlops(activations=score + value, rescored=rescored)
