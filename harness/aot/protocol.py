"""Requests to a compile process and its results. They cross the process boundary, and are cached, as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Target(Enum):
    """Platform that a step is lowered or compiled for, without such a device."""

    abstract = "abstract"
    """Lowered only, over an abstract mesh of any size."""
    cpu = "cpu"
    """Compiled for simulated CPU devices. Bytes are not trusted: 16-bit values become 32-bit."""
    cuda = "cuda"
    tpu = "tpu"


@dataclass(frozen=True)
class CompileRequest:
    """Configs whose steps a process is to analyze for one target, each on its own mesh and compute node."""

    target: Target
    configs: tuple[str, ...]
    """Paths of files that `harness.records.run.config_file.write_config` wrote."""
    topology: str = ""
    """Topology of the devices, for targets that need one."""


@dataclass(frozen=True)
class CompileStats:
    """Memory, FLOPs and traffic of one step on one mesh. A number that the target does not report is None."""

    target: Target
    platform: str
    """Display name, such as `TPU v5p 8x8x8`."""
    devices: int
    seconds: float
    """Wall seconds of the analysis."""
    state_bytes: int
    """Bytes of training state on one device, from the shapes of its shards."""
    argument_bytes: int | None = None
    """Bytes of state and batch on one device, as the compiler counts them."""
    temporary_bytes: int | None = None
    peak_bytes: int | None = None
    """Peak bytes of one device, arguments and results included."""
    dot_flops: float | None = None
    """FLOPs of one device's matrix products in a step, times the trip counts of loops."""
    executed_flops: float | None = None
    """The same FLOPs in closed form, divided evenly among the devices."""
    collective_bytes: dict[str, float] = field(default_factory=dict)
    """Bytes that one device receives in a step, by kind: all-gather, reduce-scatter, all-reduce, all-to-all,
    collective-permute."""
    uncounted: list[str] = field(default_factory=list)
    """Loops and kernels that could not be read. `dot_flops` and `collective_bytes` are then too low."""
    reshards: int | None = None
    """Number of explicit sharding changes in the step; one in a loop counts once."""
    trusted: bool = True
    """False if the bytes differ from those of the real target."""
    refused: str = ""
    """The compiler's reason why the step does not compile or fit; empty if it does."""
