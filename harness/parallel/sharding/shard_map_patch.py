"""Patch of JAX: keep the auto-sharded axes of arrays that enter and leave a partial shard_map.

JAX 0.10 lowers a shard_map over some mesh axes as if its explicit axes sharded nothing at its boundary.
Values are right, but every input, output and residual is gathered on every device and sharded again. No
public API fixes this: the specs of such a map may name only its own axes, and a `reshard` inside or a
`with_sharding_constraint` after it keeps the gather (tried in 0.10.2). So this patches a private function of
JAX 0.10. Other versions stay unpatched and pay for that traffic.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import P
from jax._src import shard_map as private

NAME = "_shardy_shard_map_sharding"


@functools.cache
def preserve_auto_shardings() -> None:
    """Patch JAX, once, so that partial shard_maps keep the sharding in each array's type."""
    if jax.__version__.startswith("0.10.") and hasattr(private, NAME):
        setattr(private, NAME, _add_auto_axes(getattr(private, NAME)))


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
