"""Where a run is trained, as types: its lane, and the machine that the lane is part of."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class MeshConfig:
    """The lane of one run."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1
    expert: int = 1
    """Experts are split over it, and so is the batch."""
    context: int = 1
    """Each sequence of tokens is split over it: keys and values go from device to device."""

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.context * self.tensor * self.expert


@dataclass
class KindConfig:
    """Chips of one kind in a cluster. Null: not known, and refused where a plan needs it."""

    chip: str = MISSING
    """Such as H100-80G; its first word says what share of the peak it is known to reach (harness.plan)."""
    chips: int | None = None
    memory_gib: float | None = None
    memory_gb_s: float | None = None
    peak_tflops: dict[str, float] = field(default_factory=dict)
    """Of one chip without sparsity, by precision: bf16, fp8, float32."""
    scale_up_domain: int | None = None
    """Chips that reach each other over the fast links."""
    scale_up_gb_s: float | None = None
    """Of one chip, one direction."""
    scale_out_gb_s: float | None = None
    """The same between fast domains."""
    watts: float | None = None
    """Of one chip with its share of host and switches, under load."""
    mtbf_device_years: float | None = None
    """Years that one chip runs for each interruption that nobody planned."""


@dataclass
class ClusterConfig:
    """The machine: `cpu` simulates as many devices as the lanes ask for."""

    name: str = "local"
    platform: str = "cpu"
    kinds: dict[str, KindConfig] = field(default_factory=dict)
    """What it is made of, for `harness plan`; only a machine that is not here needs any."""
    power_overhead: float | None = None
    """Power at the meter over power of the chips' hosts (PUE)."""
    site_megawatts: float | None = None
    """What the site can draw; null: not known."""
    restart_minutes: float | None = None
    """From an interruption to the next step: detect, exchange, start, load."""
    checkpoint_gb_s: float | None = None
    """What one chip can write to shared storage while all do."""
