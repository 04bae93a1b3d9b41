"""Analysis of a step lowered over an abstract mesh of any size. Nothing is compiled."""

from __future__ import annotations

import time
from typing import Any

from jax.extend.mlir import passmanager

from harness.aot.protocol import CompileStats, Target
from harness.aot.train_step import StepFactory, state_bytes, trace_step
from harness.models.flops import count_jaxpr_flops, subjaxprs
from harness.parallel.sharding.mesh import abstract_mesh

PROPAGATION_PIPELINE = "builtin.module(sdy-propagation-pipeline)"
"""First passes of XLA over an annotated module (Shardy). They give every value a sharding."""


def analyze_abstract(factory: StepFactory, topology: str) -> CompileStats:
    """Lower the step and return its stats. State bytes are exact. Dot FLOPs are those of the traced step,
    divided over devices by its shardings. `topology` is unused."""
    start, config = time.monotonic(), factory.config
    mesh = abstract_mesh(config.mesh)
    specs = factory(mesh)
    traced_step = trace_step(specs)
    platform = config.cluster.platform
    module = traced_step.lower(lowering_platforms=(platform,)).compiler_ir("stablehlo")
    propagate_shardings(module)
    return CompileStats(
        target=Target.abstract,
        platform=f"abstract mesh, lowered for {platform}",
        devices=mesh.size,
        seconds=time.monotonic() - start,
        state_bytes=state_bytes(specs),
        dot_flops=float(count_jaxpr_flops(traced_step.jaxpr.jaxpr)),
        reshards=count_reshards(traced_step.jaxpr.jaxpr),
    )


def count_reshards(jaxpr: Any) -> int:
    """Return the number of `reshard` equations that change a sharding. An equation in a loop counts once."""
    total = 0
    for equation in jaxpr.eqns:
        total += sum(map(count_reshards, subjaxprs(equation.params)))
        if equation.primitive.name == "reshard":
            total += equation.invars[0].aval.sharding.spec != equation.outvars[0].aval.sharding.spec
    return total


def propagate_shardings(module: Any) -> None:
    """Give every value of the MLIR module a sharding, in place. Shardy raises if shardings contradict."""
    with module.context:
        passmanager.PassManager.parse(PROPAGATION_PIPELINE).run(module.operation)
