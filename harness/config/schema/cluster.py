"""Typed config nodes of the mesh of a run and of the cluster that it is trained on."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class MeshConfig:
    """Size of each mesh axis of one run. Their product is the number of devices of the run."""

    data: int = 1
    """Axis size of data parallelism: splits the batch."""
    fsdp: int = 1
    """Axis size of fully sharded data parallelism: splits the batch, the parameters and their state."""
    tensor: int = 1
    """Axis size of tensor parallelism: splits the weight matrices."""
    expert: int = 1
    """Axis size of expert parallelism: splits the experts and the batch."""
    context: int = 1
    """Axis size of sequence parallelism: splits each sequence; keys and values go round a ring of devices."""
    pipeline: int = 1
    """Number of stages of a pipeline: splits the layers, which scan; micro-batches go from stage to stage."""

    @property
    def devices(self) -> int:
        """Number of devices of the run."""
        return self.pipeline * self.data * self.fsdp * self.context * self.tensor * self.expert


@dataclass
class KindConfig:
    """Chips of one kind in a cluster. Null means unknown: a plan that needs the value is refused."""

    chip: str = MISSING
    """Name such as H100-80G; its first word selects the measured share of the peak (harness.plan)."""
    chips: int | None = None
    """Number of chips of this kind."""
    memory_gib: float | None = None
    """Memory of one chip, in GiB."""
    memory_gb_s: float | None = None
    """Memory bandwidth of one chip, in GB/s."""
    peak_tflops: dict[str, float] = field(default_factory=dict)
    """Peak TFLOP/s of one chip without sparsity, by precision: bf16, fp8, float32."""
    scale_up_domain: int | None = None
    """Number of chips in one scale-up domain, connected by the fast links (NVLink, ICI)."""
    scale_up_gb_s: float | None = None
    """Bandwidth inside a scale-up domain, in GB/s per chip and direction."""
    scale_out_gb_s: float | None = None
    """Bandwidth between scale-up domains, in GB/s per chip and direction."""
    watts: float | None = None
    """Power of one chip under load, with its share of host and switches, in watts."""
    mtbf_device_years: float | None = None
    """Mean years between unplanned interruptions of one chip."""


@dataclass
class ClusterConfig:
    """The cluster that runs are trained on or planned for."""

    name: str = "local"
    """Name of the cluster in plans."""
    platform: str = "cpu"
    """JAX platform: cpu, cuda or tpu; cpu simulates as many devices as the meshes need."""
    kinds: dict[str, KindConfig] = field(default_factory=dict)
    """Chips by a name of your choice, for `harness plan`; empty for the machine at hand."""
    power_overhead: float | None = None
    """Power usage effectiveness (PUE): power at the meter over power of the chips and hosts."""
    site_megawatts: float | None = None
    """Power limit of the site, in megawatts; null: unknown."""
    restart_minutes: float | None = None
    """Minutes from an interruption to the next step: detection, replacement, start, loading."""
    checkpoint_gb_s: float | None = None
    """Write bandwidth to shared storage, in GB/s per chip while all chips write."""
