"""What JAX leaves out where a map over some axes of a mesh begins and ends: how the others split the arrays.

JAX 0.10 lowers such a map as if its explicit axes split nothing there. The values are right all the same, but
whatever goes in, comes out, or is kept for the gradient is gathered whole on every device and split again.
No public way says it: the specs of such a map may name only the axes that it is over, and a `reshard` inside
or a `with_sharding_constraint` behind it leaves the gather where it is (tried in 0.10.2). So this leans on a
private function of JAX; in another version nothing is changed, and it costs that traffic.
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
    """From now on such maps are lowered with the split that the type of each array says."""
    if jax.__version__.startswith("0.10.") and hasattr(private, NAME):
        setattr(private, NAME, _add_auto_axes(getattr(private, NAME)))


def _add_auto_axes(lowered: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(lowered)
    def sharding(ctx: Any, mesh: Any, manual_axes: Any, spec: P, aval: Any) -> Any:
        split = getattr(getattr(aval, "sharding", None), "spec", ())
        if len(manual_axes) < len(mesh.axis_names) and len(split) == aval.ndim:
            said = (*spec, *(None,) * (aval.ndim - len(spec)))
            spec = P(*map(_merge_axes, said, split))
        return lowered(ctx, mesh, manual_axes, spec, aval)

    return sharding


def _merge_axes(manual: Any, typed: Any) -> tuple[str, ...] | None:
    """The axes of one dimension: the manual ones, then those of its type."""
    first, more = ((axes,) if isinstance(axes, str) else tuple(axes or ()) for axes in (manual, typed))
    return (*first, *(axis for axis in more if axis not in first)) or None
