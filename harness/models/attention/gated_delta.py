"""Linear attention by the gated delta rule (Gated DeltaNet, arXiv:2412.06464), in chunks.

A head keeps one matrix S, which maps keys to values. Each token lets it fade by a and corrects what it
answers to the token's key by a share b:  S' = a S + k (b (v - a S^T k))^T,  answer S'^T q.

Queries, keys and values pass SiLU, queries and keys have unit length, the answer is normed and gated, as
published. Left out: the short convolution before SiLU, and values wider than keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.core.errors import UserError
from harness.models.layers import RMSNorm, Rotary, gather_weight, project
from harness.models.mechanism import LayerContext, MatmulFlops
from harness.models.parameters import constant, weight
from harness.models.registry import register_attention
from harness.parallel.sharding.axis_rules import out_sharding
from harness.parallel.sharding.sequence_parallel import mark_varying

FLOAT32 = jnp.dtype(jnp.float32)

RATE, STEP = 1.77, -4.6
"""Where log A and the bias of the step start: log a = -A softplus(step). The published start draws A
up to 16 and steps of .001 to .1; these are the means of their logarithms (softplus x = exp x down there).
"""


@dataclass(frozen=True)
class GatedDeltaOptions:
    chunk: int = 64
    """Tokens that are mixed at once; a power of two. It changes the speed, not the mathematics."""


def _projection_flops(context: LayerContext) -> float:
    D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
    return 2.0 * D * H * (5 * K + 2)


def _model_flops(context: LayerContext, options: GatedDeltaOptions) -> float:
    """As the recurrence: what S answers to the key, the correction, and what it answers to the query."""
    return _projection_flops(context) + 6.0 * context.shape.heads * context.shape.head_width**2


def _executed_flops(context: LayerContext, options: GatedDeltaOptions) -> MatmulFlops:
    """Five products of chunk x chunk x head width, three with the state, and the inverse."""
    W, K = options.chunk, context.shape.head_width
    inverse = 2 * max(0, W**2 - 4) / 3
    padded = -(-context.sequence_length // W) * W / context.sequence_length
    return MatmulFlops(
        weights=_projection_flops(context),
        activations=context.shape.heads * (10 * W * K + 6 * K**2 + inverse) * padded,
    )


@register_attention(
    "gated_delta",
    GatedDeltaOptions,
    model_flops=_model_flops,
    executed_flops=_executed_flops,
    cache_bytes=lambda context, options, bytes_per_value: (
        context.shape.heads * context.shape.head_width**2 * bytes_per_value
    ),
)
class GatedDelta(nnx.Module):
    """Has no use for positions: the state fades."""

    def __init__(self, context: LayerContext, options: GatedDeltaOptions):
        _check(context, options)
        D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
        self.chunk = options.chunk
        self.query, self.key, self.value, self.gate = (
            weight((D, H, K), ("width", "heads", None), fan_in=D) for _ in range(4)
        )
        self.step = weight((D, H), ("width", "heads"), fan_in=D)
        self.share = weight((D, H), ("width", "heads"), fan_in=D)
        self.rate, self.step_bias = constant(H, "heads", RATE), constant(H, "heads", STEP)
        self.norm = RMSNorm(K, context.norm_epsilon, None)
        self.output = weight((H, K, D), ("heads", None, "width"), fan_in=H * K, depth=context.shape.layers)

    def __call__(self, x_BTD: Array, rotary: Rotary) -> Array:
        query_BHTK, key_BHTK, value_BHTK = (
            jax.nn.silu(project(x_BTD, each)).swapaxes(1, 2).astype(FLOAT32)
            for each in (self.query, self.key, self.value)
        )
        decay_BHT, share_BHT = self._log_alpha_and_beta(x_BTD)
        mixed_BHTK = delta_rule(
            _normalise(query_BHTK),
            _normalise(key_BHTK),
            value_BHTK,
            decay_BHT,
            share_BHT,
            self.chunk,
            rotary.document_BT,
        )
        gate_BTHK = jax.nn.silu(project(x_BTD, self.gate))
        answer_BTHK = self.norm(mixed_BHTK.swapaxes(1, 2)).astype(x_BTD.dtype)
        return project(answer_BTHK * gate_BTHK, self.output)

    def _log_alpha_and_beta(self, x_BTD: Array) -> tuple[Array, Array]:
        """log a and b, [B, H, T] each."""
        step_BTH = project(x_BTD, self.step).astype(FLOAT32) + gather_weight(self.step_bias, FLOAT32)
        decay_BTH = -jnp.exp(gather_weight(self.rate, FLOAT32)) * jax.nn.softplus(step_BTH)
        share_BTH = jax.nn.sigmoid(project(x_BTD, self.share).astype(FLOAT32))
        return decay_BTH.swapaxes(1, 2), share_BTH.swapaxes(1, 2)


@dataclass(frozen=True)
class DecayMasks:
    """What is left of a token's correction: where it stands in a chunk W, C chunks of them in a sequence."""

    within_WW: Array
    """From a token (columns) to one after it; 0 to one before it."""
    before_W1: Array
    """From the chunk before to a token."""
    after_W1: Array
    """From a token to the end of its chunk."""
    chunk_11: Array
    """From the chunk before to the end of this one."""

    @classmethod
    def from_log_alpha(cls, decay_W1: Array, document_W1: Array | None) -> DecayMasks:
        """From log a; nothing is left where another document begins."""
        faded_W1 = jnp.cumsum(decay_W1, axis=-2)
        total_11 = faded_W1[..., -1:, :]
        apart_WW = jnp.where(_distance(decay_W1) >= 0, faded_W1 - faded_W1.swapaxes(-1, -2), -jnp.inf)
        fading = cls(*(jnp.exp(x) for x in (apart_WW, faded_W1, total_11 - faded_W1, total_11)))
        return fading if document_W1 is None else fading._within_documents(document_W1)

    def _within_documents(self, document_W1: Array) -> DecayMasks:
        last_11 = document_W1[..., -1:, :]
        # The state before the first chunk is empty, so it does not matter whose it is.
        entering_11 = jnp.pad(last_11[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0), (0, 0)))
        return DecayMasks(
            self.within_WW * (document_W1 == document_W1.swapaxes(-1, -2)),
            self.before_W1 * (document_W1 == entering_11),
            self.after_W1 * (document_W1 == last_11),
            self.chunk_11 * (entering_11 == last_11),
        )


def _distance(x_W1: Array) -> Array:
    """[W, W]: how many tokens a row stands after a column."""
    place_W = jnp.arange(x_W1.shape[-2])
    return place_W[:, None] - place_W


def delta_rule(
    query_BHTK: Array,
    key_BHTK: Array,
    value_BHTK: Array,
    log_alpha_BHT: Array,
    beta_BHT: Array,
    chunk: int,
    document_BT: Array | None = None,
) -> Array:
    """Answers [B, H, T, K], from log a and b; all in float32, as errors in S last. S starts anew with each
    document where documents are given.

    Within a chunk the corrections u solve (I + L) u = b (v - faded S^T k), with L_ts = b_t k_t.k_s faded from
    s to t for s < t (the UT transform, section 3.3); only S goes from chunk to chunk.
    """
    T = query_BHTK.shape[2]
    query, key, value, decay, share = (
        _chunks(x, chunk)
        for x in (query_BHTK, key_BHTK, value_BHTK, log_alpha_BHT[..., None], beta_BHT[..., None])
    )
    document = None if document_BT is None else _chunks(document_BT[:, None, :, None], chunk)
    fading = DecayMasks.from_log_alpha(decay, document)
    lower_WW = jnp.where(_distance(decay) > 0, share * _dot(key, key) * fading.within_WW, 0.0)
    inverse_WW = unit_lower_inverse(lower_WW)
    corrections, states = _scan_chunks(
        inverse_WW @ (share * value),
        inverse_WW @ (share * fading.before_W1 * key),
        fading.after_W1 * key,
        fading.chunk_11,
    )
    earlier = (fading.before_W1 * query) @ states
    within = (_dot(query, key) * fading.within_WW) @ corrections
    mixed_BHTK = (earlier + within).reshape(*query_BHTK.shape[:2], -1, query_BHTK.shape[-1])
    return mixed_BHTK[:, :, :T]


def _chunks(x_BHTK: Array, chunk: int) -> Array:
    """[B, H, C, W, K]. What is padded leaves the state alone: its share is 0, and so is its log decay."""
    B, H, T, K = x_BHTK.shape
    padded = jnp.pad(x_BHTK, ((0, 0), (0, 0), (0, -T % chunk), (0, 0)))
    return padded.reshape(B, H, -1, chunk, K)


def _dot(left_ZWK: Array, right_ZWK: Array) -> Array:
    return left_ZWK @ right_ZWK.swapaxes(-1, -2)


def _scan_chunks(
    value_BHCWK: Array, seen_BHCWK: Array, key_BHCWK: Array, total_BHC11: Array
) -> tuple[Array, Array]:
    """Corrections of each chunk [B, H, C, W, K], and the state before it [B, H, C, K, K]."""

    def chunk(state_BHKK: Array, each: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        value_BHWK, seen_BHWK, key_BHWK, total_BH11 = each
        correction_BHWK = value_BHWK - seen_BHWK @ state_BHKK
        after_BHKK = total_BH11 * state_BHKK + key_BHWK.swapaxes(-1, -2) @ correction_BHWK
        return after_BHKK, (correction_BHWK, state_BHKK)

    B, H, K = *value_BHCWK.shape[:2], value_BHCWK.shape[-1]
    start_BHKK = jnp.zeros((B, H, K, K), FLOAT32, out_sharding=out_sharding("batch", "heads", None, None))
    start_BHKK = mark_varying(start_BHKK)
    chunks = tuple(jnp.moveaxis(x, 2, 0) for x in (value_BHCWK, seen_BHCWK, key_BHCWK, total_BHC11))
    _, (corrections, states) = jax.lax.scan(chunk, start_BHKK, chunks)
    return jnp.moveaxis(corrections, 0, 2), jnp.moveaxis(states, 0, 2)


def unit_lower_inverse(lower_ZWW: Array) -> Array:
    """(I + lower)^-1 for strictly lower triangles whose side is a power of two, by halves.

    The powers of `lower` would give it in fewer steps, and lose all digits where keys are alike.
    """
    W = lower_ZWW.shape[-1]
    if W == 1:
        return jnp.ones_like(lower_ZWW)
    corner = -lower_ZWW[..., W // 2 :, : W // 2]
    first, second = unit_lower_inverse(
        jnp.stack([lower_ZWW[..., : W // 2, : W // 2], lower_ZWW[..., W // 2 :, W // 2 :]])
    )
    if W > 2:
        exact = jax.lax.Precision.HIGHEST
        corner = jnp.matmul(jnp.matmul(second, corner, precision=exact), first, precision=exact)
    upper = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
    return jnp.concatenate([upper, jnp.concatenate([corner, second], axis=-1)], axis=-2)


def _normalise(x_BHTK: Array) -> Array:
    return x_BHTK * jax.lax.rsqrt(jnp.sum(jnp.square(x_BHTK), axis=-1, keepdims=True) + 1e-6)


def _check(context: LayerContext, options: GatedDeltaOptions) -> None:
    chunk, T = options.chunk, context.sequence_length
    if not 1 <= chunk <= T or chunk & (chunk - 1):
        raise UserError(
            f"model.attention.options.chunk={chunk} is no power of two up to data.sequence_length={T}:"
            f" choose {2 ** (T.bit_length() - 1)} or less (64 suits most)."
        )
