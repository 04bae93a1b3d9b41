"""A step compiled for simulated devices of this machine's CPU."""

from __future__ import annotations

import dataclasses
import time

import jax

from harness.aot.compiled_stats import seen_of
from harness.aot.protocol import Seen, Target
from harness.aot.train_step import Maker, traced
from harness.parallel.sharding.mesh import lane_mesh


def look(make: Maker, topology: str) -> Seen:
    """What is in 16 bits elsewhere is in 32 here, so bytes are not to be trusted; FLOPs are."""
    start, config = time.monotonic(), make.config
    specs = make(lane_mesh(jax.devices()[: config.mesh.devices], config.mesh))
    compiled = traced(specs).lower().compile()
    platform = f"{specs.mesh.size} simulated CPU devices"
    found = seen_of(Target.cpu, platform, specs, compiled, time.monotonic() - start)
    return dataclasses.replace(found, peak_bytes=_held(compiled), trusted=False)


def _held(compiled: jax.stages.Compiled) -> int:
    """Arguments and results, those that share memory once, and temporaries, which the CPU's own peak leaves
    out."""
    sizes = compiled.memory_analysis()
    assert sizes is not None
    results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return sizes.argument_size_in_bytes + results + sizes.temp_size_in_bytes
