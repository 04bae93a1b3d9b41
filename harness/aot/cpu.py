"""Analysis of a step compiled for simulated devices of this machine's CPU."""

from __future__ import annotations

import dataclasses
import time

import jax

from harness.aot.compiled_stats import compile_stats
from harness.aot.protocol import CompileStats, Target
from harness.aot.train_step import StepFactory, trace_step
from harness.parallel.sharding.mesh import lane_mesh


def analyze_cpu(factory: StepFactory, topology: str) -> CompileStats:
    """Compile the step for simulated CPU devices and return its stats. Bytes are not trusted: the CPU backend
    widens 16-bit values to 32 bits. FLOPs are right. `topology` is unused."""
    start, config = time.monotonic(), factory.config
    specs = factory(lane_mesh(jax.devices()[: config.mesh.devices], config.mesh))
    compiled = trace_step(specs).lower().compile()
    platform = f"{specs.mesh.size} simulated CPU devices"
    stats = compile_stats(Target.cpu, platform, specs, compiled, time.monotonic() - start)
    sizes = compiled.memory_analysis()
    assert sizes is not None
    results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    # XLA's own CPU peak leaves out the temporaries.
    peak = sizes.argument_size_in_bytes + results + sizes.temp_size_in_bytes
    return dataclasses.replace(stats, peak_bytes=peak, trusted=False)
