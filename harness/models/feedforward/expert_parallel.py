"""Rows through the weights of their experts, on one device or on a mesh.

On a mesh, queues travel to their experts over the axis `expert` and back (all-to-all). For blocks the
weights travel instead: where nothing is dropped any device may have to take every token, and a program of
static shape would keep room for that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, P

from harness.models.feedforward.dispatch import DispatchPlan, capacity_plan, dropless_plan, gather_rows
from harness.models.feedforward.routing import Routing
from harness.models.layers import gather_weight
from harness.parallel.sharding.axis_rules import LOGICAL_AXIS_RULES, out_sharding, partition_spec
from harness.parallel.sharding.mesh import AXES
from harness.parallel.sharding.sequence_parallel import per_device

ExpertFunction = Callable[..., tuple[Array, Array]]
"""(x [B, T, D], chosen [B, T, K], share [B, T, K], gate [E, D, F], up [E, D, F], down [E, F, D]) to answers
[B, T, D] and what share of each sequence's assignments was dropped [B]."""


def apply_experts(
    x_BTD: Array, routing: Routing, params: tuple[nnx.Param, nnx.Param, nnx.Param], capacity: int | None
) -> tuple[Array, Array]:
    """The answers of the chosen experts, summed by share, and what share of assignments was dropped.

    `params`: gate, up and down. `capacity`: rows of an expert for a sequence; None: nothing is dropped.
    """
    local: ExpertFunction = _apply_dropless if capacity is None else partial(_apply_capacity, capacity)
    tokens = (x_BTD, routing.chosen_BTK, routing.share_BTK.astype(x_BTD.dtype))
    weights = tuple(gather_weight(param, x_BTD.dtype) for param in params)
    if out_sharding() is not None:
        whole = "width" if capacity is not None else "experts"
        axes = [tuple(None if axis in ("width", whole) else axis for axis in param.axes) for param in params]
        local = _on_mesh(local, axes)
    y_BTD, dropped_B = local(*tokens, *weights)
    return y_BTD, jnp.mean(dropped_B)


def _on_mesh(local: ExpertFunction, axes: list[tuple[str | None, ...]]) -> ExpertFunction:
    """`local` on the tokens and weights that a device holds; those of `axes`, whatever came."""
    tokens, splits = partition_spec("batch", None, None), [partition_spec(*each) for each in axes]

    def each_device(x_BTD: Array, chosen_BTK: Array, share_BTK: Array, *weights: Array):
        x_BTD, share_BTK = _mark_varying(x_BTD, tokens), _mark_varying(share_BTK, tokens)
        y_BTD, dropped_B = local(x_BTD, chosen_BTK, share_BTK, *map(_mark_varying, weights, splits))
        return jax.lax.psum(y_BTD, LOGICAL_AXIS_RULES["ffn"]), dropped_B

    split = per_device(each_device, (tokens, tokens, tokens, *splits), (tokens, partition_spec("batch")))
    return lambda *given: split(*given[:3], *map(jax.reshard, given[3:], splits))


def _mark_varying(x: Array, split: P) -> Array:
    """Says of x that its use differs between devices that hold the same of it, so that their gradients
    are summed: a gradient rule of our own has to be told."""
    held = {name for axes in split if axes for name in ((axes,) if isinstance(axes, str) else axes)}
    return jax.lax.pcast(x, tuple(name for name in AXES if name not in held), to="varying")


def _apply_dropless(
    x_BTD: Array, chosen_BTK: Array, share_BTK: Array, *weights: Array
) -> tuple[Array, Array]:
    plan, owner_M = dropless_plan(chosen_BTK.reshape(-1), len(weights[0]))
    # A copy of the weights a block: to be read once a product anyway.
    y_MRD = _swiglu(*_dispatch(plan, len(owner_M), x_BTD, share_BTK), *(each[owner_M] for each in weights))
    return _combine(plan, y_MRD, share_BTK), jnp.zeros(x_BTD.shape[0])


def _apply_capacity(
    capacity: int, x_BTD: Array, chosen_BTK: Array, share_BTK: Array, *weights: Array
) -> tuple[Array, Array]:
    B, shards = x_BTD.shape[0], 1 if out_sharding() is None else jax.lax.axis_size("expert")
    experts = len(weights[0]) * shards
    plan = capacity_plan(chosen_BTK.reshape(B, -1), experts, capacity)
    rows = _dispatch(plan, experts, x_BTD, share_BTK)
    if shards > 1:
        rows = tuple(jax.lax.all_to_all(each, "expert", 0, 1, tiled=True) for each in rows)
    y_ERD = _swiglu(*rows, *weights)
    if shards > 1:
        y_ERD = jax.lax.all_to_all(y_ERD, "expert", 1, 0, tiled=True)
    is_dropped_BA = (plan.row_A == len(plan.assignment_R)).reshape(B, -1)
    return _combine(plan, y_ERD, share_BTK), jnp.mean(is_dropped_BA, axis=1, dtype=jnp.float32)


def _dispatch(plan: DispatchPlan, groups: int, x_BTD: Array, share_BTK: Array) -> tuple[Array, Array]:
    """Tokens [Z, R, D] and their shares [Z, R, 1], in as many groups as are multiplied with one weight."""
    k, D = share_BTK.shape[-1], x_BTD.shape[-1]
    x_AD = jnp.repeat(x_BTD.reshape(-1, D), k, axis=0)
    rows = (gather_rows(each, plan.assignment_R, plan.row_A) for each in (x_AD, share_BTK.reshape(-1, 1)))
    x_RD, share_R1 = rows
    return x_RD.reshape(groups, -1, D), share_R1.reshape(groups, -1, 1)


def _combine(plan: DispatchPlan, y_ZRD: Array, share_BTK: Array) -> Array:
    """Back in the order of tokens, the k answers of each summed."""
    y_AD = gather_rows(y_ZRD.reshape(-1, y_ZRD.shape[-1]), plan.row_A, plan.assignment_R)
    return jnp.sum(y_AD.reshape(*share_BTK.shape, -1), axis=2)


def _swiglu(x_ZRD: Array, share_ZR1: Array, gate_ZDF: Array, up_ZDF: Array, down_ZFD: Array) -> Array:
    """As `swiglu`; shares enter before the last product, whose result is then not needed backward."""
    hidden_ZRF = jax.nn.silu(_grouped_matmul(x_ZRD, gate_ZDF)) * _grouped_matmul(x_ZRD, up_ZDF)
    return _grouped_matmul(hidden_ZRF * share_ZR1, down_ZFD)


@jax.custom_vjp
def _grouped_matmul(x_ZRI: Array, weight_ZIO: Array) -> Array:
    """x @ weight a group, with the gradient of the weight over the last axis too (as `layers.product`)."""
    return jnp.matmul(x_ZRI, weight_ZIO, preferred_element_type=x_ZRI.dtype)


def _grouped_matmul_backward(kept: tuple[Array, Array], dy_ZRO: Array) -> tuple[Array, Array]:
    x_ZRI, weight_ZIO = kept
    dx_ZRI = jnp.matmul(dy_ZRO, weight_ZIO.swapaxes(1, 2), preferred_element_type=dy_ZRO.dtype)
    x_ZIR = jax.lax.optimization_barrier(x_ZRI.swapaxes(1, 2))
    dweight_ZIO = jnp.matmul(x_ZIR, dy_ZRO, preferred_element_type=dy_ZRO.dtype)
    return dx_ZRI, jax.lax.optimization_barrier(dweight_ZIO)


_grouped_matmul.defvjp(lambda x, weight: (_grouped_matmul(x, weight), (x, weight)), _grouped_matmul_backward)
