"""A step compiled for GPUs and TPUs that are not here, by their own compilers (`make plan-extras`).

Both want devices, which come from a topology that is only described. Nothing here was run on such devices.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.experimental import topologies

from harness.aot.compiled_stats import seen_of
from harness.aot.gpu_specs import gpu_named
from harness.aot.protocol import Seen, Target
from harness.aot.tpu_slices import check_slice
from harness.aot.train_step import Maker, state_bytes, traced
from harness.core.errors import UserError
from harness.parallel.sharding.mesh import lane_mesh

BUDGET = 0.8
"""Share of a GPU's memory that a step may use, as `harness.plan` has it: the rest is for the driver, the
communication library and holes. The GPU compiler itself takes any size."""

CUDA_OPTIONS = {
    # There is no device to try kernels on.
    "xla_gpu_autotune_level": 0,
    # Untuned tiles of its own do not fit every product; a library call does.
    "xla_gpu_enable_triton_gemm": False,
}


def look_cuda(make: Maker, topology: str) -> Seen:
    """Topology: `CHIP:SLICESxHOSTSxGPUS`, such as `H100-80G:1x64x8`. Raises UserError."""
    chip, _, shape = topology.partition(":")
    gpu = gpu_named(chip)
    if len(shape.split("x")) != 3:
        raise UserError(f"topology={topology}: want slices x hosts x GPUs of a host, such as {chip}:1x64x8")
    devices = _devices("cuda", chip, target_config=gpu.description, topology=shape)
    found = _compiled(Target.cuda, f"{chip} {shape}", make, devices, CUDA_OPTIONS)
    return dataclasses.replace(found, refused=_over(found, BUDGET * gpu.memory_bytes))


def look_tpu(make: Maker, topology: str) -> Seen:
    """Topology: `KIND:SHAPE`, such as `v5p:8x8x8`. Raises UserError, for a slice that cannot be had too."""
    check_slice(topology)
    kind, _, shape = topology.partition(":")
    devices = _devices("tpu", topology, **_tpu_details(kind, shape))
    return _compiled(Target.tpu, f"TPU {kind} {shape}", make, devices, {})


def _tpu_details(kind: str, shape: str) -> dict[str, Any]:
    """The two cores of a v4 are one device to a program, as those of a v5p; and one chip is a slice too."""
    cores = {"chip_config_name": "megacore"} if kind == "v4" else {}
    return cores | ({"chips_per_host_bounds": (1, 1, 1)} if shape == "1x1" else {})


def _devices(platform: str, name: str, **details: Any) -> Sequence[Any]:
    """Of a topology that is described. Raises UserError where the compiler for it is not here."""
    try:
        return topologies.get_topology_desc(name, platform, **details).devices
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError):
            raise
        raise UserError(
            f"target={platform}: its compiler is not in this environment; run `make plan-extras`"
        ) from error


def _compiled(
    target: Target, platform: str, make: Maker, devices: Sequence[Any], options: Mapping[str, Any]
) -> Seen:
    """What the compiler says; that it needs more memory than a device has is an answer too."""
    start = time.monotonic()
    specs = make(lane_mesh(devices, make.config.mesh))
    lowered = traced(specs).lower()
    try:
        compiled = lowered.compile(compiler_options=dict(options))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        seconds = time.monotonic() - start
        return Seen(target, platform, specs.mesh.size, seconds, state_bytes(specs), refused=_sentence(error))
    return seen_of(target, platform, specs, compiled, time.monotonic() - start)


def _sentence(error: Exception) -> str:
    """The compiler's first line, without the code before it and the full stop."""
    return str(error).splitlines()[0].partition("RESOURCE_EXHAUSTED: ")[2].strip()[:300].rstrip(".")


def _over(seen: Seen, limit: float) -> str:
    """What is wrong with a peak above a limit in bytes; empty: nothing."""
    peak = seen.peak_bytes or 0
    if peak <= limit:
        return ""
    return (
        f"its peak of {peak / 2**30:.1f} GiB is above the {limit / 2**30:.1f} GiB that a step may use of a"
        f" {seen.platform.split()[0]} ({BUDGET:.0%} of its memory)"
    )
