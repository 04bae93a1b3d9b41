"""Linear attention by the gated delta rule (Gated DeltaNet, arXiv:2412.06464), computed in chunks.

Each head keeps a matrix S that maps keys to values. Each token decays S by alpha and corrects S's output for
the token's key by a fraction beta:  S' = alpha S + k (beta (v - alpha S^T k))^T,  output S'^T q.

As published, queries, keys and values pass through SiLU, queries and keys have unit length, and the output is
normalised and gated. Left out: the short convolution before SiLU, and values wider than keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.core.errors import UserError
from harness.models.layers import Rotary, gather_weight, project
from harness.models.mechanism import LayerContext, MatmulFlops
from harness.models.parameters import constant, weight
from harness.models.registry import register_attention
from harness.parallel.sharding.axis_rules import out_sharding
from harness.parallel.sharding.sequence_parallel import mark_varying

FLOAT32 = jnp.dtype(jnp.float32)

RATE, STEP = 1.77, -4.6
"""Initial values of log A and of the bias of the step; log alpha = -A softplus(step). The paper draws A up to
16 and steps from .001 to .1; these are the means of their logarithms (softplus x is about exp x there)."""


@dataclass(frozen=True)
class GatedDeltaOptions:
    """Options of `gated_delta`."""

    chunk: int = 64
    """Tokens that are processed at once; a power of two. It changes the speed, not the mathematics."""


def _projection_flops(context: LayerContext) -> float:
    D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
    return 2.0 * D * H * (5 * K + 2)


def _model_flops(context: LayerContext, options: GatedDeltaOptions) -> float:
    """Count the recurrence: S's output for the key, the correction, and S's output for the query."""
    return _projection_flops(context) + 6.0 * context.shape.heads * context.shape.head_width**2


def _executed_flops(context: LayerContext, options: GatedDeltaOptions) -> MatmulFlops:
    """Count five products of chunk x chunk x head width, three with the state, and the inverse."""
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
    """Gated delta rule. It ignores rotary positions, since the state decays with distance."""

    def __init__(self, context: LayerContext, options: GatedDeltaOptions):
        chunk, T = options.chunk, context.sequence_length
        if not 1 <= chunk <= T or chunk & (chunk - 1):
            raise UserError(
                f"model.attention.options.chunk={chunk}: use a power of two, at most data.sequence_length="
                f"{T}. Choose {2 ** (T.bit_length() - 1)} or less (64 suits most)."
            )
        D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
        self.chunk = chunk
        self.query, self.key, self.value, self.gate = (
            weight((D, H, K), ("width", "heads", None), fan_in=D) for _ in range(4)
        )
        self.step = weight((D, H), ("width", "heads"), fan_in=D)
        self.share = weight((D, H), ("width", "heads"), fan_in=D)
        self.rate, self.step_bias = constant(H, "heads", RATE), constant(H, "heads", STEP)
        self.norm = context.norm(K, None)
        self.output = weight((H, K, D), ("heads", None, "width"), fan_in=H * K, depth=context.shape.layers)

    def __call__(self, x_BTD: Array, rotary: Rotary) -> Array:
        """Map [B, T, D] to [B, T, D]. `rotary` gives only the documents: positions enter by the decay."""
        query_BHTK, key_BHTK, value_BHTK = (
            jax.nn.silu(project(x_BTD, matrix)).swapaxes(1, 2).astype(FLOAT32)
            for matrix in (self.query, self.key, self.value)
        )
        log_alpha_BHT, beta_BHT = self._log_alpha_and_beta(x_BTD)
        qkv = _normalise(query_BHTK), _normalise(key_BHTK), value_BHTK
        mixed_BHTK = delta_rule(*qkv, log_alpha_BHT, beta_BHT, self.chunk, rotary.document_BT)
        gate_BTHK = jax.nn.silu(project(x_BTD, self.gate))
        output_BTHK = self.norm(mixed_BHTK.swapaxes(1, 2)).astype(x_BTD.dtype)
        return project(output_BTHK * gate_BTHK, self.output)

    def _log_alpha_and_beta(self, x_BTD: Array) -> tuple[Array, Array]:
        """Return log alpha and beta, each [B, H, T]."""
        step_BTH = project(x_BTD, self.step, exact=True).astype(FLOAT32)
        step_BTH = step_BTH + gather_weight(self.step_bias, FLOAT32)
        log_alpha_BTH = -jnp.exp(gather_weight(self.rate, FLOAT32)) * jax.nn.softplus(step_BTH)
        beta_BTH = jax.nn.sigmoid(project(x_BTD, self.share, exact=True).astype(FLOAT32))
        return log_alpha_BTH.swapaxes(1, 2), beta_BTH.swapaxes(1, 2)


@dataclass(frozen=True)
class DecayMasks:
    """Factors by which corrections and states decay, for chunks of W tokens, C chunks in a sequence."""

    within_WW: Array
    """Decay from a token (column) to a later one of the same chunk (row); 0 for an earlier one."""
    before_W1: Array
    """Decay from the end of the previous chunk to a token."""
    after_W1: Array
    """Decay from a token to the end of its chunk."""
    chunk_11: Array
    """Decay from the end of the previous chunk to the end of this one."""

    @classmethod
    def from_log_alpha(cls, log_alpha_W1: Array, document_W1: Array | None) -> DecayMasks:
        """Compute the factors from log alpha; they are 0 across a document boundary."""
        cumulative_W1 = jnp.cumsum(log_alpha_W1, axis=-2)
        total_11 = cumulative_W1[..., -1:, :]
        difference_WW = jnp.where(
            _distance(log_alpha_W1) >= 0, cumulative_W1 - cumulative_W1.swapaxes(-1, -2), -jnp.inf
        )
        masks = cls(*(jnp.exp(x) for x in (difference_WW, cumulative_W1, total_11 - cumulative_W1, total_11)))
        return masks if document_W1 is None else masks._within_documents(document_W1)

    def _within_documents(self, document_W1: Array) -> DecayMasks:
        last_11 = document_W1[..., -1:, :]
        # The state before the first chunk is zero, so any document may own it.
        entering_11 = jnp.pad(last_11[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0), (0, 0)))
        return DecayMasks(
            self.within_WW * (document_W1 == document_W1.swapaxes(-1, -2)),
            self.before_W1 * (document_W1 == entering_11),
            self.after_W1 * (document_W1 == last_11),
            self.chunk_11 * (entering_11 == last_11),
        )


def _distance(x_W1: Array) -> Array:
    """Return [W, W]: the row's position minus the column's."""
    position_W = jnp.arange(x_W1.shape[-2])
    return position_W[:, None] - position_W


def delta_rule(
    query_BHTK: Array,
    key_BHTK: Array,
    value_BHTK: Array,
    log_alpha_BHT: Array,
    beta_BHT: Array,
    chunk: int,
    document_BT: Array | None = None,
) -> Array:
    """Return the outputs [B, H, T, K] of the gated delta rule, in float32 because errors in S persist. If
    documents are given, S restarts at each one.

    Within a chunk the corrections u solve (I + L) u = beta (v - decayed S^T k), where L_ts = beta_t k_t.k_s,
    decayed from s to t, for s < t (the UT transform, section 3.3). Only S passes from chunk to chunk.
    """
    T = query_BHTK.shape[2]
    query, key, value, log_alpha, beta = (
        split_chunks(x, chunk)
        for x in (query_BHTK, key_BHTK, value_BHTK, log_alpha_BHT[..., None], beta_BHT[..., None])
    )
    document = None if document_BT is None else split_chunks(document_BT[:, None, :, None], chunk)
    masks = DecayMasks.from_log_alpha(log_alpha, document)
    lower_WW = jnp.where(_distance(log_alpha) > 0, beta * _dot(key, key) * masks.within_WW, 0.0)
    inverse_WW = unit_lower_inverse(lower_WW)
    values, keys = inverse_WW @ (beta * value), inverse_WW @ (beta * masks.before_W1 * key)
    corrections, states = _scan_chunks(values, keys, masks.after_W1 * key, masks.chunk_11)
    earlier = (masks.before_W1 * query) @ states
    within = (_dot(query, key) * masks.within_WW) @ corrections
    mixed_BHTK = (earlier + within).reshape(*query_BHTK.shape[:2], -1, query_BHTK.shape[-1])
    return mixed_BHTK[:, :, :T]


def split_chunks(x_BHTK: Array, chunk: int) -> Array:
    """Split time into chunks: [B, H, C, W, K]. Padding, of beta 0 and log alpha 0, leaves the state as is."""
    B, H, T, K = x_BHTK.shape
    padded = jnp.pad(x_BHTK, ((0, 0), (0, 0), (0, -T % chunk), (0, 0)))
    return padded.reshape(B, H, -1, chunk, K)


def _dot(left_ZWK: Array, right_ZWK: Array) -> Array:
    return left_ZWK @ right_ZWK.swapaxes(-1, -2)


def _scan_chunks(
    value_BHCWK: Array, decayed_key_BHCWK: Array, key_BHCWK: Array, decay_BHC11: Array
) -> tuple[Array, Array]:
    """Return each chunk's corrections [B, H, C, W, K] and the state before it [B, H, C, K, K]."""

    def chunk(state_BHKK: Array, inputs: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        value_BHWK, decayed_key_BHWK, key_BHWK, decay_BH11 = inputs
        correction_BHWK = value_BHWK - decayed_key_BHWK @ state_BHKK
        after_BHKK = decay_BH11 * state_BHKK + key_BHWK.swapaxes(-1, -2) @ correction_BHWK
        return after_BHKK, (correction_BHWK, state_BHKK)

    B, H, K = *value_BHCWK.shape[:2], value_BHCWK.shape[-1]
    start_BHKK = jnp.zeros((B, H, K, K), FLOAT32, out_sharding=out_sharding("batch", "heads", None, None))
    start_BHKK = mark_varying(start_BHKK)
    chunks = tuple(jnp.moveaxis(x, 2, 0) for x in (value_BHCWK, decayed_key_BHCWK, key_BHCWK, decay_BHC11))
    _, (corrections, states) = jax.lax.scan(chunk, start_BHKK, chunks)
    return jnp.moveaxis(corrections, 0, 2), jnp.moveaxis(states, 0, 2)


def unit_lower_inverse(lower_ZWW: Array) -> Array:
    """Compute (I + lower)^-1 for strictly lower triangles whose side is a power of two, by halves.

    The powers of `lower` would take fewer steps, but lose all digits where keys are alike.
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
