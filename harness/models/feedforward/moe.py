"""A mixture of experts (arXiv:2412.19437, section 2.1.2): each token passes through the k of E experts that
its router scores highest, and through shared ones. Every expert is a SwiGLU as wide as `ffn`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.core.errors import UserError, nearest
from harness.models.feedforward.dispatch import block_rows, queue_rows
from harness.models.feedforward.expert_parallel import through_experts
from harness.models.feedforward.routing import evened, route
from harness.models.feedforward.swiglu import Options as Plain
from harness.models.feedforward.swiglu import SwiGLU
from harness.models.layers import gathered, project
from harness.models.mechanism import Products, Signals, Site
from harness.models.parameters import level, weight
from harness.models.registry import feedforward

FLOAT32 = jnp.dtype(jnp.float32)
BALANCES = ("bias", "auxiliary", "none")
DISPATCHES = ("dropless", "capacity")


@dataclass(frozen=True)
class Options:
    experts: int = 8
    top_k: int = 2
    shared: int = 0
    """Experts beside those, that every token passes through: one SwiGLU of so many times the width."""
    balance: str = "bias"
    """bias: chosen by score + bias, which rises for experts below the mean load (arXiv:2408.15664).
    auxiliary: a loss on uneven use. none: neither."""
    balance_rate: float = 0.001
    """What the bias moves a step, or the weight of the auxiliary loss."""
    dispatch: str = "dropless"
    capacity_factor: float = 1.25
    """With `dispatch: capacity`, rows of an expert over those of an even load."""

    def __post_init__(self) -> None:
        _check(self)


def _check(options: Options) -> None:
    """Raises UserError for the first value that has no meaning."""

    def refuse(key: str, said: str) -> None:
        raise UserError(f"model.feedforward.options.{key}={getattr(options, key)}{said}")

    if not 1 <= options.top_k <= options.experts:
        refuse("top_k", f" is not between 1 and experts={options.experts}: a token goes to so many of them.")
    if options.top_k == 1 < options.experts:
        refuse("top_k", " gives the router no gradient, as shares sum to 1: choose 2 or more, or experts=1.")
    if options.shared < 0:
        refuse("shared", " is negative: give 0 or more.")
    if options.balance not in BALANCES:
        refuse("balance", f" is no way to balance: {nearest(options.balance, BALANCES)}")
    if options.balance_rate < 0:
        refuse("balance_rate", " is negative: it would drive the experts apart; give 0 or more.")
    if options.dispatch not in DISPATCHES:
        refuse("dispatch", f" is no way to dispatch: {nearest(options.dispatch, DISPATCHES)}")
    if options.capacity_factor <= 0:
        refuse("capacity_factor", " leaves the experts no room: give more than 0, such as 1.25.")


def _matrix(site: Site) -> float:
    """FLOPs of one of the three products of one expert, a token."""
    return 2.0 * site.shape.width * site.shape.ffn


def _router(site: Site, options: Options) -> float:
    return 2.0 * site.shape.width * options.experts


def _model_flops(site: Site, options: Options) -> float:
    return _router(site, options) + 3 * (options.top_k + options.shared) * _matrix(site)


def _executed(site: Site, options: Options) -> Products:
    """Experts multiply all their rows, empty ones too, one weight a group of rows: `dots` computes such
    products again. The last is not needed backward, because shares are multiplied before it."""
    rows, shared = _rows_per_token(site, options), options.shared
    return Products(
        weights=_router(site, options) + 2 * shared * _matrix(site),
        activations=2 * rows * _matrix(site),
        final=(rows + shared) * _matrix(site),
    )


def _rows_per_token(site: Site, options: Options) -> float:
    T, E, k = site.sequence_length, options.experts, options.top_k
    if options.dispatch == "capacity":
        return E * queue_rows(T, E, k, options.capacity_factor) / T
    tokens = site.sequences * T // site.parts
    return block_rows(tokens * k, E) / tokens


def _idle(site: Site, options: Options) -> int:
    return 3 * (options.experts - options.top_k) * site.shape.width * site.shape.ffn


def _evened(options: Options, own: Mapping[str, Array], signals: Signals) -> dict[str, Array]:
    if options.balance != "bias":
        return {}
    return {"bias": evened(own["bias"], signals.load_E, options.balance_rate)}


@feedforward(
    "moe",
    Options,
    model_flops=_model_flops,
    executed_flops=_executed,
    idle_parameters=_idle,
    after_step=_evened,
    # A queue is in the order of a whole sequence.
    splits=lambda site, options: options.dispatch == "dropless",
)
class MoE(nnx.Module):
    """[B, T, D] in; [B, T, D] and Signals out."""

    def __init__(self, site: Site, options: Options):
        D, F, E, L = site.shape.width, site.shape.ffn, options.experts, site.shape.layers
        self.options = options
        self.router = weight((D, E), ("width", None), fan_in=D)
        self.bias = level(E, None, 0.0) if options.balance == "bias" else None
        self.gate = weight((E, D, F), ("experts", "width", "ffn"), fan_in=D)
        self.up = weight((E, D, F), ("experts", "width", "ffn"), fan_in=D)
        self.down = weight((E, F, D), ("experts", "ffn", "width"), fan_in=F, depth=L)
        self.shared = SwiGLU(_as_wide(site, options.shared), Plain()) if options.shared else None

    def __call__(self, x_BTD: Array) -> tuple[Array, Signals]:
        options = self.options
        # Scores in float32: two that bfloat16 cannot tell apart would send a token elsewhere.
        scores_BTE = jax.nn.sigmoid(project(x_BTD.astype(FLOAT32), self.router))
        bias_E = None if self.bias is None else gathered(self.bias, FLOAT32)
        routing = route(scores_BTE, bias_E, options.top_k)
        capacity = None
        if options.dispatch == "capacity":
            T = x_BTD.shape[1]
            capacity = queue_rows(T, options.experts, options.top_k, options.capacity_factor)
        y_BTD, dropped = through_experts(x_BTD, routing, (self.gate, self.up, self.down), capacity)
        if self.shared is not None:
            y_BTD = y_BTD + self.shared(x_BTD)
        auxiliary = options.balance_rate * routing.unevenness if options.balance == "auxiliary" else None
        return y_BTD, Signals(routing.load_E, dropped, auxiliary)


def _as_wide(site: Site, experts: int) -> Site:
    shape = dataclasses.replace(site.shape, ffn=experts * site.shape.ffn)
    return dataclasses.replace(site, shape=shape)
