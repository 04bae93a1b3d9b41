"""A step lowered over an abstract mesh, of any size: nothing is compiled."""

from __future__ import annotations

import time
from typing import Any

from jax.extend.mlir import passmanager

from harness.aot.protocol import Seen, Target
from harness.aot.train_step import Maker, state_bytes, traced
from harness.models.flops import count_traced, subjaxprs
from harness.parallel.sharding.mesh import abstract_mesh

PROPAGATION = "builtin.module(sdy-propagation-pipeline)"
"""What XLA does first with shardings that are written down (Shardy): it gives one to every value."""


def look(make: Maker, topology: str) -> Seen:
    """Bytes of state are exact; dot FLOPs are those of the traced step, as its shardings share them out."""
    start, config = time.monotonic(), make.config
    mesh = abstract_mesh(config.mesh)
    specs = make(mesh)
    found = traced(specs)
    platform = config.cluster.platform
    module = found.lower(lowering_platforms=(platform,)).compiler_ir("stablehlo")
    propagate(module)
    return Seen(
        target=Target.abstract,
        platform=f"abstract mesh, lowered for {platform}",
        devices=mesh.size,
        seconds=time.monotonic() - start,
        state_bytes=state_bytes(specs),
        dot_flops=float(count_traced(found.jaxpr.jaxpr)),
        reshards=reshards(found.jaxpr.jaxpr),
    )


def reshards(jaxpr: Any) -> int:
    """Places where a value is asked for in another sharding than it has, each counted once however often it
    runs. Counted before lowering, where every value says its sharding."""
    within = sum(reshards(inner) for each in jaxpr.eqns for inner in subjaxprs(each.params))
    return within + sum(each.primitive.name == "reshard" and _changes(each) for each in jaxpr.eqns)


def _changes(equation: Any) -> bool:
    return equation.invars[0].aval.sharding.spec != equation.outvars[0].aval.sharding.spec


def propagate(module: Any) -> None:
    """Give every value of the module a sharding. Raises what Shardy raises where they contradict."""
    with module.context:
        passmanager.PassManager.parse(PROPAGATION).run(module.operation)
