"""What a process that can lower or compile says of one step, for a plan: it crosses between them as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Target(Enum):
    """For what a step is lowered or compiled, without any such device."""

    abstract = "abstract"
    """Lowered alone, over an abstract mesh of any size."""
    cpu = "cpu"
    """Compiled for simulated devices, where 16-bit values become 32: its bytes are not to be trusted."""
    cuda = "cuda"
    tpu = "tpu"


@dataclass(frozen=True)
class Request:
    """What a process is asked: to look at the step of each config, on the mesh and with the compute that it
    says, for one target."""

    target: Target
    configs: tuple[str, ...]
    """Paths of files that `harness.records.run.config_file.write_config` wrote."""
    topology: str = ""
    """Of the devices, where a target wants to know."""


@dataclass(frozen=True)
class Seen:
    """Of one step on one mesh. What a target does not tell is None."""

    target: Target
    platform: str
    """In words, such as `TPU v5p 8x8x8`."""
    devices: int
    seconds: float
    """That it took to find out."""
    state_bytes: int
    """Of one device: what stays from step to step, by the shapes of its shards."""
    argument_bytes: int | None = None
    """The same with the batch, as the compiler counts it."""
    temporary_bytes: int | None = None
    peak_bytes: int | None = None
    """Of one device at once, arguments and results in it."""
    dot_flops: float | None = None
    """Of one device's products in a step, loops counted as often as they run."""
    executed_flops: float | None = None
    """What the closed form says of the same, shared evenly among the devices."""
    collective_bytes: dict[str, float] = field(default_factory=dict)
    """Received by one device in a step, by kind: all-gather, reduce-scatter, all-reduce, all-to-all,
    collective-permute."""
    uncounted: list[str] = field(default_factory=list)
    """What the compiler's text does not tell, so that `dot_flops` and `collective_bytes` are too low."""
    reshards: int | None = None
    """Explicit changes of a sharding that the step asks for, each once however often it runs."""
    trusted: bool = True
    """Whether its bytes are those of the real target."""
    refused: str = ""
    """Why it does not compile or fit, in the compiler's words; empty: it does."""
