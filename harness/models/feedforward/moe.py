"""A mixture of experts (arXiv:2412.19437, section 2.1.2). Each token uses the k of E experts that its router
scores highest, and the shared experts. Every expert is a SwiGLU of width `ffn`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.config.socket_registry import NoOptions
from harness.core.errors import UserError, did_you_mean
from harness.models.feedforward.dispatch import block_rows, queue_rows
from harness.models.feedforward.expert_parallel import apply_experts
from harness.models.feedforward.ragged import choose_experts, computed_rows
from harness.models.feedforward.routing import Routing, route, update_router_bias
from harness.models.feedforward.swiglu import SwiGLU, matmul_flops
from harness.models.kernels import KernelChoice
from harness.models.layers import gather_weight, project
from harness.models.mechanism import LayerContext, MatmulFlops, RouterStats
from harness.models.parameters import constant, weight
from harness.models.registry import register_feedforward

FLOAT32 = jnp.dtype(jnp.float32)
BALANCES = ("bias", "auxiliary", "none")
DISPATCHES = ("dropless", "capacity")


@dataclass(frozen=True)
class MoEOptions:
    """Options of `moe`."""

    experts: int = 8
    top_k: int = 2
    shared: int = 0
    """Number of additional experts that every token uses: one SwiGLU of this many times the width."""
    balance: str = "bias"
    """bias: experts are chosen by score + bias, which rises for experts below the mean load
    (arXiv:2408.15664). auxiliary: a loss on uneven load. none: neither."""
    balance_rate: float = 0.001
    """Change of the bias per step, or the weight of the auxiliary loss."""
    dispatch: str = "dropless"
    capacity_factor: float = 1.25
    """Rows of an expert relative to an even load, with `dispatch: capacity`."""

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.experts:
            self._refuse("top_k", f"must be between 1 and experts={self.experts}: the experts of a token.")
        if self.top_k == 1 < self.experts:
            problem = "leaves the router without a gradient: weights sum to 1."
            self._refuse("top_k", f"{problem} Choose 2 or more, or experts=1.")
        if self.shared < 0:
            self._refuse("shared", "must be 0 or more.")
        if self.balance not in BALANCES:
            self._refuse("balance", f"is unknown: {did_you_mean(self.balance, BALANCES)}")
        if self.balance_rate < 0:
            self._refuse("balance_rate", "must be 0 or more: a negative rate drives the loads apart.")
        if self.dispatch not in DISPATCHES:
            self._refuse("dispatch", f"is unknown: {did_you_mean(self.dispatch, DISPATCHES)}")
        if self.capacity_factor <= 0:
            self._refuse("capacity_factor", "must be above 0, for example 1.25.")

    def expert_width(self, width: int) -> int:
        """Return the width of what the chosen experts read, in a model of this width."""
        return width

    def _refuse(self, key: str, problem: str) -> None:
        raise UserError(f"model.feedforward.options.{key}={getattr(self, key)} {problem}")


def _router_flops(context: LayerContext, options: MoEOptions) -> float:
    return 2.0 * context.shape.width * options.experts


def _expert_flops(context: LayerContext, options: MoEOptions) -> float:
    """Return the FLOPs of one product of one expert with one token."""
    return 2.0 * options.expert_width(context.shape.width) * context.shape.ffn


def _model_flops(context: LayerContext, options: MoEOptions) -> float:
    experts = 3 * options.top_k * _expert_flops(context, options)
    return _router_flops(context, options) + experts + 3 * options.shared * matmul_flops(context)


def _executed_flops(context: LayerContext, options: MoEOptions) -> MatmulFlops:
    """Count the experts' products with all rows, empty ones included. They have one weight per group of rows,
    so `dots` recomputes them. The last product is not needed backward, because rows are weighted before
    it."""
    rows, shared_experts = _rows_per_token(context, options), options.shared
    return MatmulFlops(
        weights=_router_flops(context, options) + 2 * shared_experts * matmul_flops(context),
        activations=2 * rows * _expert_flops(context, options),
        final=rows * _expert_flops(context, options) + shared_experts * matmul_flops(context),
    )


def _rows_per_token(context: LayerContext, options: MoEOptions) -> float:
    T, E, k = context.sequence_length, options.experts, options.top_k
    if options.dispatch == "capacity":
        return E * queue_rows(T, E, k, options.capacity_factor) / T
    tokens = context.per_device_batch * T // context.sequence_shards
    rows = computed_rows if choose_experts(context).fused else block_rows
    return rows(tokens * k, E) / tokens


def _kernel(context: LayerContext, options: MoEOptions) -> KernelChoice | None:
    """Return the kernel of the experts; None for queues of equal length, which are plain products."""
    return choose_experts(context) if options.dispatch == "dropless" else None


def _update_bias(options: MoEOptions, params: Mapping[str, Array], signals: RouterStats) -> dict[str, Array]:
    if options.balance != "bias":
        return {}
    return {"bias": update_router_bias(params["bias"], signals.load_E, options.balance_rate)}


def register_experts(
    name: str,
    options: type,
    extra_flops: Callable[[LayerContext, Any], float] = lambda context, options: 0.0,
) -> Callable[..., Any]:
    """Return the decorator that registers a mixture of experts that extends `MoE`, with its costs, balance
    and kernel; `extra_flops` are those of further products with weights, per token."""
    return register_feedforward(
        name,
        options,
        model_flops=lambda context, options: _model_flops(context, options) + extra_flops(context, options),
        executed_flops=lambda context, options: (
            _executed_flops(context, options) + MatmulFlops(weights=extra_flops(context, options))
        ),
        inactive_parameters=lambda context, options: (
            3
            * (options.experts - options.top_k)
            * options.expert_width(context.shape.width)
            * context.shape.ffn
        ),
        update_after_step=_update_bias,
        kernel=_kernel,
        # A queue needs the full sequence in order.
        supports_sequence_parallel=lambda context, options: options.dispatch == "dropless",
    )


@register_experts("moe", MoEOptions)
class MoE(nnx.Module):
    """Map [B, T, D] to [B, T, D] and RouterStats. A variant overrides one step: `scores`, `choose`, `apply`
    or `auxiliary`."""

    def __init__(self, context: LayerContext, options: MoEOptions):
        D, F, E, L = context.shape.width, context.shape.ffn, options.experts, context.shape.layers
        self.options, kernel = options, _kernel(context, options)
        self.fused = kernel is not None and kernel.fused
        self.router = weight((D, E), ("width", None), fan_in=D)
        self.bias = constant(E, None, 0.0) if options.balance == "bias" else None
        I = options.expert_width(D)
        self.gate = weight((E, I, F), ("experts", "width", "ffn"), fan_in=I)
        self.up = weight((E, I, F), ("experts", "width", "ffn"), fan_in=I)
        self.down = weight((E, F, I), ("experts", "ffn", "width"), fan_in=F, depth=L)
        wide = dataclasses.replace(context.shape, ffn=options.shared * F)
        shared_context = dataclasses.replace(context, shape=wide)
        self.shared = SwiGLU(shared_context, NoOptions()) if options.shared else None

    def __call__(self, x_BTD: Array) -> tuple[Array, RouterStats]:
        """Map [B, T, D] to [B, T, D] and the statistics of this layer's router."""
        scores_BTE = self.scores(x_BTD)
        routing = self.choose(scores_BTE)
        y_BTD, dropped = self.apply(x_BTD, routing)
        if self.shared is not None:
            y_BTD = y_BTD + self.shared(x_BTD)
        return y_BTD, RouterStats(routing.load_E, dropped, self.auxiliary(scores_BTE, routing))

    def scores(self, x_BTD: Array) -> Array:
        """Return the float32 scores [B, T, E] of the experts, here sigmoids."""
        # Scores in float32: rounding to bfloat16 could change a token's experts.
        return jax.nn.sigmoid(project(x_BTD.astype(FLOAT32), self.router))

    def choose(self, scores_BTE: Array) -> Routing:
        """Return the experts of each token, and their weights."""
        bias_E = None if self.bias is None else gather_weight(self.bias, FLOAT32)
        return route(scores_BTE, bias_E, self.options.top_k)

    def apply(self, x_BTD: Array, routing: Routing) -> tuple[Array, Array]:
        """Return the weighted sum of the chosen experts' outputs, and the dropped fraction of assignments."""
        options, capacity = self.options, None
        if options.dispatch == "capacity":
            capacity = queue_rows(x_BTD.shape[1], options.experts, options.top_k, options.capacity_factor)
        return apply_experts(x_BTD, routing, (self.gate, self.up, self.down), capacity, self.fused)

    def auxiliary(self, scores_BTE: Array, routing: Routing) -> Array | None:
        """Return the term added to the loss; None adds nothing."""
        options = self.options
        return options.balance_rate * routing.load_balance_loss if options.balance == "auxiliary" else None
