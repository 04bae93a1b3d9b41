"""Mamba-2 (arXiv:2405.21060): a linear state that each token decays, writes and reads, computed in chunks.

Each head keeps a state S [N, P]:  S' = exp(dt A) S + dt B x^T,  y = S'^T C + D x,  output N(y silu(z)). All
heads share B and C. x, B and C pass a short convolution and SiLU. Heads are as wide as the model's.

As the reference, but: convolutions start as the identity, A and dt start at the means of the logarithms of
their published ranges (1 to 16, .001 to .1), and the norm is over each head instead of over all, so that
heads can lie on different devices.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.core.errors import UserError
from harness.models.attention.gated_delta import FLOAT32, RATE, STEP, DecayMasks, split_chunks
from harness.models.layers import Rotary, gather_weight, project
from harness.models.mechanism import LayerContext
from harness.models.parameters import constant, weight
from harness.models.registry import register_attention
from harness.models.sequence.time_shift import ShortConvolution
from harness.parallel.sharding.axis_rules import out_sharding
from harness.parallel.sharding.sequence_parallel import mark_varying


@dataclass(frozen=True)
class Mamba2Options:
    """Options of `mamba2`."""

    state: int = 128
    """Number N of values that the state keeps for each value of a head."""
    expand: int = 2
    """Width of all heads, relative to the model's."""
    taps: int = 4
    """Tokens that a convolution reads, its own among them."""
    chunk: int = 64
    """Tokens that are processed at once. It changes the speed, not the mathematics."""

    def __post_init__(self) -> None:
        for name in ("state", "expand", "taps", "chunk"):
            if getattr(self, name) < 1:
                raise UserError(f"model.attention.options.{name}={getattr(self, name)} must be at least 1.")

    def heads(self, context: LayerContext) -> int:
        """Return the number of heads. Raises UserError if they do not fill the expanded width."""
        width, head_width = self.expand * context.shape.width, context.shape.head_width
        if width % head_width:
            raise UserError(
                f"model.attention.options.expand={self.expand}: {width} channels are no multiple of"
                f" model.head_width={head_width}. Choose another head width."
            )
        return width // head_width


def _model_flops(context: LayerContext, options: Mamba2Options) -> float:
    """Count the projections, and of the recurrence a write and a read of the state."""
    D, P, N, H = context.shape.width, context.shape.head_width, options.state, options.heads(context)
    return 2.0 * D * (3 * H * P + 2 * N + H) + 4.0 * H * P * N


def _cache_bytes(context: LayerContext, options: Mamba2Options, bytes_per_value: float) -> float:
    inner = options.heads(context) * context.shape.head_width
    last_inputs = (options.taps - 1) * (inner + 2 * options.state)
    return (inner * options.state + last_inputs) * bytes_per_value


@register_attention("mamba2", Mamba2Options, model_flops=_model_flops, cache_bytes=_cache_bytes)
class Mamba2(nnx.Module):
    """State space with scalar decay. It ignores rotary positions, since the state decays with distance."""

    def __init__(self, context: LayerContext, options: Mamba2Options):
        D, P, N, H = context.shape.width, context.shape.head_width, options.state, options.heads(context)
        self.chunk = min(options.chunk, context.sequence_length)
        self.value, self.gate = (weight((D, H, P), ("width", "heads", None), fan_in=D) for _ in range(2))
        self.write, self.read = (weight((D, N), ("width", None), fan_in=D) for _ in range(2))
        self.step = weight((D, H), ("width", "heads"), fan_in=D)
        self.rate, self.step_bias = constant(H, "heads", RATE), constant(H, "heads", STEP)
        self.skip = constant(H, "heads", 1.0)
        self.value_convolution = ShortConvolution((H, P), ("heads", None), options.taps)
        self.write_convolution, self.read_convolution = (
            ShortConvolution((N,), (None,), options.taps) for _ in range(2)
        )
        self.norm = context.norm(P, None)
        self.output = weight((H, P, D), ("heads", None, "width"), fan_in=H * P, depth=context.shape.layers)

    def __call__(self, x_BTD: Array, rotary: Rotary) -> Array:
        """Map [B, T, D] to [B, T, D]. `rotary` gives only the documents."""
        value_BTHP = self._convolved(x_BTD, self.value, self.value_convolution, rotary)
        write_BTN = self._convolved(x_BTD, self.write, self.write_convolution, rotary)
        read_BTN = self._convolved(x_BTD, self.read, self.read_convolution, rotary)
        step_BTH = project(x_BTD, self.step, exact=True).astype(FLOAT32) + gather_weight(
            self.step_bias, FLOAT32
        )
        step_BTH = jax.nn.softplus(step_BTH)
        log_alpha_BTH = -jnp.exp(gather_weight(self.rate, FLOAT32)) * step_BTH
        written_BHTP = (step_BTH[..., None] * value_BTHP).swapaxes(1, 2)
        states = log_alpha_BTH.swapaxes(1, 2), self.chunk, rotary.document_BT
        mixed_BTHP = state_space(read_BTN, write_BTN, written_BHTP, *states).swapaxes(1, 2)
        mixed_BTHP = mixed_BTHP + gather_weight(self.skip, FLOAT32)[:, None] * value_BTHP
        gate_BTHP = jax.nn.silu(project(x_BTD, self.gate))
        return project(self.norm(mixed_BTHP.astype(x_BTD.dtype) * gate_BTHP), self.output)

    def _convolved(
        self, x_BTD: Array, matrix: nnx.Param, convolve: ShortConvolution, rotary: Rotary
    ) -> Array:
        return jax.nn.silu(convolve(project(x_BTD, matrix), rotary.document_BT)).astype(FLOAT32)


def state_space(
    read_BTN: Array,
    write_BTN: Array,
    value_BHTP: Array,
    log_alpha_BHT: Array,
    chunk: int,
    document_BT: Array | None = None,
) -> Array:
    """Return S'^T C [B, H, T, P] for the states S' = alpha S + B x^T, in float32. If documents are given, S
    restarts at each one. Only the state passes from chunk to chunk (section 6)."""
    T = value_BHTP.shape[2]
    value, log_alpha = split_chunks(value_BHTP, chunk), split_chunks(log_alpha_BHT[..., None], chunk)
    read_BCWN, write_BCWN = (split_chunks(x[:, None], chunk)[:, 0] for x in (read_BTN, write_BTN))
    document = None if document_BT is None else split_chunks(document_BT[:, None, :, None], chunk)
    masks = DecayMasks.from_log_alpha(log_alpha, document)
    states_BHCNP = _states_before(
        jnp.einsum("bcwn,bhcwp->bhcnp", write_BCWN, masks.after_W1 * value), masks.chunk_11
    )
    score_BCWW = jnp.einsum("bcwn,bcvn->bcwv", read_BCWN, write_BCWN)
    within = (score_BCWW[:, None] * masks.within_WW) @ value
    earlier = masks.before_W1 * jnp.einsum("bcwn,bhcnp->bhcwp", read_BCWN, states_BHCNP)
    return (within + earlier).reshape(*value_BHTP.shape[:2], -1, value_BHTP.shape[-1])[:, :, :T]


def _states_before(written_BHCNP: Array, decay_BHC11: Array) -> Array:
    """Return the state before each chunk, [B, H, C, N, P]."""

    def chunk(state_BHNP: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        written_BHNP, decay_BH11 = inputs
        return decay_BH11 * state_BHNP + written_BHNP, state_BHNP

    B, H, _, N, P = written_BHCNP.shape
    start_BHNP = jnp.zeros((B, H, N, P), FLOAT32, out_sharding=out_sharding("batch", "heads", None, None))
    chunks = jnp.moveaxis(written_BHCNP, 2, 0), jnp.moveaxis(decay_BHC11, 2, 0)
    return jnp.moveaxis(jax.lax.scan(chunk, mark_varying(start_BHNP), chunks)[1], 0, 2)
