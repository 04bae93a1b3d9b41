"""Patch of JAX: keep the auto-sharded axes of arrays that enter and leave a partial shard_map.

JAX 0.10 lowers a shard_map over some mesh axes as if its explicit axes sharded nothing at its boundary.
Values are right, but every input, output and residual is gathered on every device and sharded again. No
public API fixes this: the specs of such a map may name only its own axes, and a `reshard` inside or a
`with_sharding_constraint` after it keeps the gather (tried in 0.10.2). So this patches a private function of
JAX, if a lowering shows that it is needed: JAX 0.11 leaves the axes to the compiler, which keeps them, and
JAX 0.12 names them. Without that function the gathers stay.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from jax import P
from jax.sharding import AbstractMesh, AxisType

try:
    from jax._src import shard_map as private
except ImportError:  # a JAX that moved it
    private = None

NAME = "_shardy_shard_map_sharding"


@functools.cache
def preserve_auto_shardings() -> None:
    """Patch JAX, if it needs it, so that partial shard_maps keep the sharding in each array's type."""
    if not hasattr(private, NAME):
        return
    with ThreadPoolExecutor(1) as other_thread:  # the mesh in context is that of a run, and of this thread
        is_needed = other_thread.submit(loses_auto_shardings).result()
    if is_needed:
        setattr(private, NAME, _add_auto_axes(getattr(private, NAME)))


def loses_auto_shardings() -> bool:
    """Lower a shard_map over one of two mesh axes. Return whether its boundary leaves out the other one."""
    mesh = AbstractMesh((2, 2), ("auto", "manual"), axis_types=(AxisType.Explicit,) * 2)
    spec = P(None, "manual")
    with jax.sharding.use_abstract_mesh(mesh):
        sharding = jax.NamedSharding(mesh, P("auto", "manual"))
        x = jax.ShapeDtypeStruct((2, 2), jnp.float32, sharding=sharding)
        identity = jax.shard_map(lambda x: x, in_specs=spec, out_specs=spec, axis_names={"manual"})
        text = jax.jit(identity).trace(x).lower(lowering_platforms=("cpu",)).as_text()
    boundaries = [line for line in text.splitlines() if "sdy.manual_computation" in line]
    return any('"auto"' not in line and "?" not in line for line in boundaries)  # ?: left to the compiler


def _add_auto_axes(lowered: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(lowered)
    def sharding(ctx: Any, mesh: Any, manual_axes: Any, spec: P, aval: Any) -> Any:
        type_spec = getattr(getattr(aval, "sharding", None), "spec", ())
        if len(manual_axes) < len(mesh.axis_names) and len(type_spec) == aval.ndim:
            manual_spec = (*spec, *(None,) * (aval.ndim - len(spec)))
            spec = P(*map(_merge_axes, manual_spec, type_spec))
        return lowered(ctx, mesh, manual_axes, spec, aval)

    return sharding


def _merge_axes(manual: Any, typed: Any) -> tuple[str, ...] | None:
    """Return the axes of one dimension: the manual ones, then those of its type."""
    first, second = ((axes,) if isinstance(axes, str) else tuple(axes or ()) for axes in (manual, typed))
    return (*first, *(axis for axis in second if axis not in first)) or None
