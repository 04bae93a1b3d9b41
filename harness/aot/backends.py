"""Analysis of a training step for each target: lowered over an abstract mesh, or compiled.

The GPU and TPU compilers (`make plan-extras`) get devices from a topology description. Nothing here was run
on such devices. An analysis function takes the step factory of a config and a topology, and returns stats; it
raises UserError, or the compiler's own exceptions.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.experimental import topologies
from jax.extend.mlir import passmanager

from harness.aot.gpu_specs import gpu_spec
from harness.aot.hlo import read_hlo
from harness.aot.protocol import CompileStats, Target
from harness.aot.tpu_slices import check_slice
from harness.aot.train_step import StepFactory, state_bytes, trace_step
from harness.core.errors import UserError
from harness.models.counting.jaxpr import ProductCount, count_jaxpr, subjaxprs
from harness.parallel.sharding.mesh import abstract_mesh, lane_mesh

PROPAGATION_PIPELINE = "builtin.module(sdy-propagation-pipeline)"
"""First passes of XLA over an annotated module (Shardy). They give every value a sharding."""

MEMORY_BUDGET = 0.8
"""Share of a GPU's memory that a step may use, the same as in `harness.plan`. The rest is for the driver, the
communication library and fragmentation. The GPU compiler itself accepts any size."""

CUDA_OPTIONS = {
    # There is no device to time kernels on.
    "xla_gpu_autotune_level": 0,
    # Triton's untuned tiles do not fit every matrix product; a library call does.
    "xla_gpu_enable_triton_gemm": False,
}


def analyze_abstract(factory: StepFactory, topology: str) -> CompileStats:
    """Lower the step over an abstract mesh of any size. State bytes are exact. Dot FLOPs are those of the
    traced step, divided over devices by its shardings. Nothing is compiled. `topology` is unused."""
    start, config = time.monotonic(), factory.config
    mesh = abstract_mesh(config.mesh)
    specs = factory(mesh)
    traced_step = trace_step(specs)
    platform = config.cluster.platform
    module = traced_step.lower(lowering_platforms=(platform,)).compiler_ir("stablehlo")
    propagate_shardings(module)
    products = count_jaxpr(traced_step.jaxpr.jaxpr)
    return CompileStats(
        target=Target.abstract,
        platform=f"abstract mesh, lowered for {platform}",
        devices=mesh.size,
        seconds=time.monotonic() - start,
        state_bytes=state_bytes(specs),
        dot_flops=float(products.total),
        reshards=count_reshards(traced_step.jaxpr.jaxpr),
        uncounted=_left_out(products),
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


def analyze_cpu(factory: StepFactory, topology: str) -> CompileStats:
    """Compile for simulated devices of this machine's CPU. Bytes are not trusted: the CPU backend widens
    16-bit values to 32 bits. FLOPs are right. `topology` is unused."""
    devices = jax.devices()[: factory.config.mesh.devices]
    return _compile(Target.cpu, f"{len(devices)} simulated CPU devices", factory, devices)


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
    return _compile(Target.tpu, f"TPU {kind} {shape}", factory, _tpu_devices(topology))


def _tpu_devices(topology: str) -> Sequence[Any]:
    # A v4's two cores are one device, as on a v5p. A slice may be one chip.
    cores = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    bounds = {"chips_per_host_bounds": (1, 1, 1)} if topology.endswith(":1x1") else {}
    return _topology_devices("tpu", topology, **cores, **bounds)


def _topology_devices(platform: str, name: str, **details: Any) -> Sequence[Any]:
    """Return the devices of a described topology. Raises UserError if its compiler is not installed."""
    try:
        return topologies.get_topology_desc(name, platform, **details).devices
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError):
            raise
        message = f"target={platform}: its compiler is not in this environment; run `make plan-extras`"
        raise UserError(message) from error


def _compile(
    target: Target,
    platform: str,
    factory: StepFactory,
    devices: Sequence[Any],
    options: Mapping[str, Any] | None = None,
) -> CompileStats:
    """Compile and return the stats. If the step needs more memory than a device has, `refused` says so."""
    start = time.monotonic()
    specs = factory(lane_mesh(devices, factory.config.mesh))
    lowered, state = trace_step(specs).lower(), state_bytes(specs)
    try:
        compiled = lowered.compile(compiler_options=dict(options or {}))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        seconds = time.monotonic() - start
        reason = str(error).splitlines()[0].partition("RESOURCE_EXHAUSTED: ")[2].strip()[:300].rstrip(".")
        return CompileStats(target, platform, specs.mesh.size, seconds, state, refused=reason)
    stats = CompileStats(target, platform, specs.mesh.size, time.monotonic() - start, state)
    return _with_counts(stats, compiled)


def _with_counts(stats: CompileStats, compiled: jax.stages.Compiled) -> CompileStats:
    """Add bytes from the compiler's memory analysis, and FLOPs and traffic from its HLO text."""
    sizes, counts = compiled.memory_analysis(), read_hlo(compiled.as_text() or "")
    assert sizes is not None
    # XLA's own CPU peak leaves out the temporaries.
    results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    cpu_peak = sizes.argument_size_in_bytes + results + sizes.temp_size_in_bytes
    return dataclasses.replace(
        stats,
        argument_bytes=sizes.argument_size_in_bytes,
        temporary_bytes=sizes.temp_size_in_bytes,
        peak_bytes=cpu_peak if stats.target is Target.cpu else sizes.peak_memory_in_bytes,
        dot_flops=counts.dot_flops,
        collective_bytes=counts.collective_bytes,
        uncounted=[
            *(f"loop {name} counted as one iteration" for name in counts.unknown_loops),
            *_not_read(counts.unread_kernels),
        ],
        trusted=stats.target is not Target.cpu,
    )


def _left_out(products: ProductCount) -> list[str]:
    uneven = ["all but the largest branch of each cond"] if products.uneven_branches else []
    return [*_not_read(products.kernels), *uneven]


def _not_read(kernels: Iterable[str]) -> list[str]:
    return [f"kernel {name} not read" for name in kernels]


def _over_budget_message(stats: CompileStats, limit: float) -> str:
    """Return the message for a peak above `limit` bytes, or "" if it fits."""
    peak = stats.peak_bytes or 0
    if peak <= limit:
        return ""
    return (
        f"its peak of {peak / 2**30:.1f} GiB is above the {limit / 2**30:.1f} GiB that a step may use of a"
        f" {stats.platform.split()[0]} ({MEMORY_BUDGET:.0%} of its memory)"
    )


ANALYZERS: dict[Target, Callable[[StepFactory, str], CompileStats]] = {
    Target.abstract: analyze_abstract,
    Target.cpu: analyze_cpu,
    Target.cuda: analyze_cuda,
    Target.tpu: analyze_tpu,
}
"""Analysis functions by target."""
