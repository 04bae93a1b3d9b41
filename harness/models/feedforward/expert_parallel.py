"""Application of the experts to their tokens, on one device or on a mesh.

On a mesh, capacity queues travel to their experts over the axis `expert` and back (all-to-all). For dropless
blocks the weights travel instead: any device may have to take every token, and a program with static shapes
would have to reserve memory for that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, P

from harness.models.feedforward.dispatch import (
    DispatchPlan,
    capacity_plan,
    dropless_plan,
    gather_rows,
    sorted_plan,
)
from harness.models.feedforward.ragged import ragged_matmul
from harness.models.feedforward.routing import Routing
from harness.models.layers import gather_rounded
from harness.models.products.matrix_unit import result_dtype, transpose
from harness.parallel.sharding.axis_rules import LOGICAL_AXIS_RULES, out_sharding, partition_spec
from harness.parallel.sharding.mesh import AXES
from harness.parallel.sharding.sequence_parallel import per_device

ExpertFunction = Callable[..., tuple[Array, Array]]
"""Function of x [B, T, D], experts [B, T, K], weights [B, T, K], gate [E, D, F], up [E, D, F], down [E, F,
D]. It returns the outputs [B, T, D] and the dropped fraction of each sequence's assignments [B]."""


def apply_experts(
    x_BTD: Array,
    routing: Routing,
    params: tuple[nnx.Param, nnx.Param, nnx.Param],
    capacity: int | None,
    fused: bool,
) -> tuple[Array, Array]:
    """Return the weighted sum of the chosen experts' outputs, and the dropped fraction of all assignments.

    `params` are gate, up and down. `capacity` is the rows per expert and sequence; None drops nothing, and
    `fused` then takes the kernel of `ragged`.
    """
    local: ExpertFunction = _apply_ragged if fused else _apply_dropless
    if capacity is not None:
        local = partial(_apply_capacity, capacity)
    tokens = (x_BTD, routing.chosen_BTK, routing.share_BTK.astype(x_BTD.dtype))
    gathered = ("width",) if capacity is not None else ("width", "experts")
    weights = tuple(gather_rounded(param, x_BTD.dtype, gathered) for param in params)
    if out_sharding() is not None:
        axes = [tuple(None if axis in gathered else axis for axis in param.axes) for param in params]
        local = _on_mesh(local, axes, check_vma=not fused)
    y_BTD, dropped_B = local(*tokens, *weights)
    return y_BTD, jnp.mean(dropped_B)


def _on_mesh(local: ExpertFunction, axes: list[tuple[str | None, ...]], check_vma: bool) -> ExpertFunction:
    """Return `local` applied to the tokens and weights that each device holds. `axes` are the logical axes of
    the weights; differently sharded weights are resharded. Kernels of libraries do not declare over which
    devices their outputs vary, as `check_vma` needs."""
    token_spec, weight_specs = partition_spec("batch", None, None), [partition_spec(*names) for names in axes]

    def each_device(x_BTD: Array, chosen_BTK: Array, share_BTK: Array, *weights: Array):
        x_BTD, share_BTK = _mark_varying(x_BTD, token_spec), _mark_varying(share_BTK, token_spec)
        y_BTD, dropped_B = local(x_BTD, chosen_BTK, share_BTK, *map(_mark_varying, weights, weight_specs))
        return jax.lax.psum(y_BTD, LOGICAL_AXIS_RULES["ffn"]), dropped_B

    in_specs = (token_spec, token_spec, token_spec, *weight_specs)
    out_specs = token_spec, partition_spec("batch")
    local_on_mesh = per_device(each_device, in_specs, out_specs, check_vma)
    return lambda *arrays: local_on_mesh(*arrays[:3], *map(jax.reshard, arrays[3:], weight_specs))


def _mark_varying(x: Array, split: P) -> Array:
    """Mark x as varying over the devices that replicate it: custom gradient rules then sum its gradients."""
    sharded_axes = {name for axes in split if axes for name in ((axes,) if isinstance(axes, str) else axes)}
    return jax.lax.pcast(x, tuple(name for name in AXES if name not in sharded_axes), to="varying")


def _apply_dropless(
    x_BTD: Array, chosen_BTK: Array, share_BTK: Array, *weights: Array
) -> tuple[Array, Array]:
    plan, owner_M = dropless_plan(chosen_BTK.reshape(-1), len(weights[0]))
    # Each block copies its expert's weights, which a product has to read once anyway.
    rows = _dispatch(plan, len(owner_M), x_BTD, share_BTK)
    y_MRD = _swiglu(*rows, *(matrix[owner_M] for matrix in weights))
    return _combine(plan, y_MRD, share_BTK), jnp.zeros(x_BTD.shape[0])


def _apply_ragged(
    x_BTD: Array, chosen_BTK: Array, share_BTK: Array, *weights: Array, interpret: bool = False
) -> tuple[Array, Array]:
    plan, rows_E = sorted_plan(chosen_BTK.reshape(-1), len(weights[0]))
    (x_RD,), (share_R1,) = _dispatch(plan, 1, x_BTD, share_BTK)
    gate_RF, up_RF = (ragged_matmul(x_RD, weight, rows_E, interpret) for weight in weights[:2])
    y_RD = ragged_matmul(jax.nn.silu(gate_RF) * up_RF * share_R1, weights[2], rows_E, interpret)
    return _combine(plan, y_RD, share_BTK), jnp.zeros(x_BTD.shape[0])


def _apply_capacity(
    capacity: int, x_BTD: Array, chosen_BTK: Array, share_BTK: Array, *weights: Array
) -> tuple[Array, Array]:
    B, shards = x_BTD.shape[0], 1 if out_sharding() is None else jax.lax.axis_size("expert")
    experts = len(weights[0]) * shards
    plan = capacity_plan(chosen_BTK.reshape(B, -1), experts, capacity)
    rows = _dispatch(plan, experts, x_BTD, share_BTK)
    if shards > 1:
        rows = tuple(jax.lax.all_to_all(array, "expert", 0, 1, tiled=True) for array in rows)
    y_ERD = _swiglu(*rows, *weights)
    if shards > 1:
        y_ERD = jax.lax.all_to_all(y_ERD, "expert", 1, 0, tiled=True)
    is_dropped_BA = (plan.row_A == len(plan.assignment_R)).reshape(B, -1)
    return _combine(plan, y_ERD, share_BTK), jnp.mean(is_dropped_BA, axis=1, dtype=jnp.float32)


def _dispatch(plan: DispatchPlan, groups: int, x_BTD: Array, share_BTK: Array) -> tuple[Array, Array]:
    """Return tokens [Z, R, D] and weights [Z, R, 1], in `groups` groups that each share weight matrices."""
    k, D = share_BTK.shape[-1], x_BTD.shape[-1]
    arrays = jnp.repeat(x_BTD.reshape(-1, D), k, axis=0), share_BTK.reshape(-1, 1)
    x_RD, share_R1 = (gather_rows(array_AX, plan.assignment_R, plan.row_A) for array_AX in arrays)
    return x_RD.reshape(groups, -1, D), share_R1.reshape(groups, -1, 1)


def _combine(plan: DispatchPlan, y_ZRD: Array, share_BTK: Array) -> Array:
    """Return the outputs in token order, the k of each token summed."""
    y_AD = gather_rows(y_ZRD.reshape(-1, y_ZRD.shape[-1]), plan.row_A, plan.assignment_R)
    return jnp.sum(y_AD.reshape(*share_BTK.shape, -1), axis=2)


def _swiglu(x_ZRD: Array, share_ZR1: Array, gate_ZDF: Array, up_ZDF: Array, down_ZFD: Array) -> Array:
    """Compute SwiGLU per group. Weighting rows before the last product makes its result unneeded backward."""
    hidden_ZRF = jax.nn.silu(_grouped_matmul(x_ZRD, gate_ZDF)) * _grouped_matmul(x_ZRD, up_ZDF)
    return _grouped_matmul(hidden_ZRF * share_ZR1, down_ZFD)


@jax.custom_vjp
def _grouped_matmul(x_ZRI: Array, weight_ZIO: Array) -> Array:
    """Compute x @ weight per group, from float32 weights; their gradient is float32, and also contracts the
    last axis (`layers.matmul`)."""
    return _grouped_matmul_forward(x_ZRI, weight_ZIO)[0]


def _grouped_matmul_forward(x_ZRI: Array, weight_ZIO: Array) -> tuple[Array, tuple[Array, Array]]:
    weight_ZIO = weight_ZIO.astype(x_ZRI.dtype)
    y_ZRO = jnp.matmul(x_ZRI, weight_ZIO, preferred_element_type=result_dtype(x_ZRI.dtype))
    return y_ZRO.astype(x_ZRI.dtype), (x_ZRI, weight_ZIO)


def _grouped_matmul_backward(residuals: tuple[Array, Array], dy_ZRO: Array) -> tuple[Array, Array]:
    x_ZRI, weight_ZIO = residuals
    wide = result_dtype(dy_ZRO.dtype)
    dx_ZRI = jnp.einsum("zro,zio->zri", dy_ZRO, weight_ZIO, preferred_element_type=wide)
    dweight_ZIO = jnp.matmul(transpose(x_ZRI), dy_ZRO, preferred_element_type=jnp.float32)
    return dx_ZRI.astype(dy_ZRO.dtype), jax.lax.optimization_barrier(dweight_ZIO)


_grouped_matmul.defvjp(_grouped_matmul_forward, _grouped_matmul_backward)
