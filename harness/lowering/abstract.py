"""A step lowered over an abstract mesh, of any size: nothing is compiled."""

from __future__ import annotations

import time
from typing import Any

from jax.extend.mlir import ir, passmanager
from jax.sharding import AbstractMesh, AxisType

from harness.lowering.step import Maker, state_bytes, traced
from harness.models.flops import count_traced
from harness.parallel.mesh import AXES, shape_of
from harness.records.seen import Seen, Target

CONSTRAINT = "sdy.sharding_constraint"
PROPAGATION = "builtin.module(sdy-propagation-pipeline)"
"""What XLA does first with shardings that are written down (Shardy): it gives one to every value."""


def look(make: Maker, topology: str) -> Seen:
    """Bytes of state are exact; dot FLOPs are those of the traced step, as its shardings share them out."""
    start, config = time.monotonic(), make.config
    mesh = AbstractMesh(shape_of(config.mesh), AXES, axis_types=(AxisType.Explicit,) * len(AXES))
    specs = make(mesh)
    found = traced(specs)
    platform = config.cluster.platform
    module = found.lower(lowering_platforms=(platform,)).compiler_ir("stablehlo")
    asked = reshards(module)
    propagate(module)
    return Seen(
        target=Target.abstract,
        platform=f"abstract mesh, lowered for {platform}",
        devices=mesh.size,
        seconds=time.monotonic() - start,
        state_bytes=state_bytes(specs),
        dot_flops=float(count_traced(found.jaxpr.jaxpr)),
        reshards=asked,
    )


def reshards(module: Any) -> int:
    """Places where a value whose sharding is written down is asked for in another, each counted once however
    often it runs. With explicit axes JAX writes the sharding of every value as a constraint."""
    found = 0

    def visit(operation: Any) -> Any:
        nonlocal found
        found += operation.name == CONSTRAINT and _changes(operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return found


def _changes(constraint: Any) -> bool:
    source = constraint.operands[0].owner
    if getattr(source, "name", None) != CONSTRAINT:
        return False
    return source.attributes["sharding"] != constraint.attributes["sharding"]


def propagate(module: Any) -> None:
    """Give every value of the module a sharding. Raises what Shardy raises where they contradict."""
    with module.context:
        passmanager.PassManager.parse(PROPAGATION).run(module.operation)
