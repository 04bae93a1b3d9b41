"""Analysis of a step compiled for absent GPUs and TPUs by their own compilers (`make plan-extras`).

The compilers get devices from a topology description. Nothing here was run on such devices.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.experimental import topologies

from harness.aot.compiled_stats import compile_stats
from harness.aot.gpu_specs import gpu_spec
from harness.aot.protocol import CompileStats, Target
from harness.aot.tpu_slices import check_slice
from harness.aot.train_step import StepFactory, state_bytes, trace_step
from harness.core.errors import UserError
from harness.parallel.sharding.mesh import lane_mesh

MEMORY_BUDGET = 0.8
"""Share of a GPU's memory that a step may use, the same as in `harness.plan`. The rest is for the driver, the
communication library and fragmentation. The GPU compiler itself accepts any size."""

CUDA_OPTIONS = {
    # There is no device to time kernels on.
    "xla_gpu_autotune_level": 0,
    # Triton's untuned tiles do not fit every matrix product; a library call does.
    "xla_gpu_enable_triton_gemm": False,
}


def analyze_cuda(factory: StepFactory, topology: str) -> CompileStats:
    """Compile for GPUs and return the stats. `topology`: `CHIP:SLICESxHOSTSxGPUS`, such as `H100-80G:1x64x8`.
    Raises UserError for a bad topology, an unknown chip or a missing compiler."""
    chip, _, shape = topology.partition(":")
    gpu = gpu_spec(chip)
    if len(shape.split("x")) != 3:
        raise UserError(f"topology={topology} is not slices x hosts x GPUs per host, such as {chip}:1x64x8")
    devices = _topology_devices("cuda", chip, target_config=gpu.target_config, topology=shape)
    stats = _compile(Target.cuda, f"{chip} {shape}", factory, devices, CUDA_OPTIONS)
    return dataclasses.replace(stats, refused=_over_budget_message(stats, MEMORY_BUDGET * gpu.memory_bytes))


def analyze_tpu(factory: StepFactory, topology: str) -> CompileStats:
    """Compile for TPUs and return the stats. `topology`: `KIND:SHAPE`, such as `v5p:8x8x8`. Raises UserError
    for a slice that is not offered or a missing compiler."""
    check_slice(topology)
    kind, _, shape = topology.partition(":")
    # A v4's two cores are one device, as on a v5p. A slice may be one chip.
    cores = {"chip_config_name": "megacore"} if kind == "v4" else {}
    bounds = {"chips_per_host_bounds": (1, 1, 1)} if shape == "1x1" else {}
    devices = _topology_devices("tpu", topology, **cores, **bounds)
    return _compile(Target.tpu, f"TPU {kind} {shape}", factory, devices, {})


def _topology_devices(platform: str, name: str, **details: Any) -> Sequence[Any]:
    """Return the devices of a described topology. Raises UserError if its compiler is not installed."""
    try:
        return topologies.get_topology_desc(name, platform, **details).devices
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError):
            raise
        raise UserError(
            f"target={platform}: its compiler is not in this environment; run `make plan-extras`"
        ) from error


def _compile(
    target: Target, platform: str, factory: StepFactory, devices: Sequence[Any], options: Mapping[str, Any]
) -> CompileStats:
    """Compile and return the stats. If the step needs more memory than a device has, `refused` says so."""
    start = time.monotonic()
    specs = factory(lane_mesh(devices, factory.config.mesh))
    lowered = trace_step(specs).lower()
    try:
        compiled = lowered.compile(compiler_options=dict(options))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        seconds = time.monotonic() - start
        reason = str(error).splitlines()[0].partition("RESOURCE_EXHAUSTED: ")[2].strip()[:300].rstrip(".")
        return CompileStats(target, platform, specs.mesh.size, seconds, state_bytes(specs), refused=reason)
    return compile_stats(target, platform, specs, compiled, time.monotonic() - start)


def _over_budget_message(stats: CompileStats, limit: float) -> str:
    """Return the message for a peak above `limit` bytes, or "" if it fits."""
    peak = stats.peak_bytes or 0
    if peak <= limit:
        return ""
    return (
        f"its peak of {peak / 2**30:.1f} GiB is above the {limit / 2**30:.1f} GiB that a step may use of a"
        f" {stats.platform.split()[0]} ({MEMORY_BUDGET:.0%} of its memory)"
    )
