"""Who starts the runs of a sweep, how patiently, and what of an earlier call is taken up, as types."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Isolation(Enum):
    """Who shares a worker process: the variants of a block, nobody, or the whole sweep (where one process
    owns every device of a host)."""

    block = "block"
    run = "run"
    all = "all"


class Submit(Enum):
    """What Slurm is given for each worker: a job of its own, or a step in the allocation that the driver is
    already in."""

    jobs = "jobs"
    steps = "steps"


class Schedule(Enum):
    """How a sweep shares its devices: longest run first as devices come free, or all runs at once."""

    queue = "queue"
    static = "static"


OnFailure = Enum("OnFailure", {"continue": "continue", "stop_block": "stop_block", "stop_all": "stop_all"})
"""What a run that failed for good ends: itself, the rest of its block, or the sweep. By call, because
`continue` is a word of Python, and OmegaConf reads an enum by its names."""


@dataclass
class SlurmConfig:
    """What Slurm is asked for, a worker. Null: whatever the site gives by itself."""

    submit: Submit = Submit.jobs
    partition: str | None = None
    account: str | None = None
    time_limit: str | None = None
    """Of a job, as `sbatch --time` takes it."""
    save_seconds: int = 120
    """Before the time limit, a worker is told to save; it is submitted again, and goes on."""
    constraint: str | None = None
    """Features that each node must have, so that both variants of a block get equal ones whatever shares
    a job."""
    nodelist: str | None = None
    cpus: int = 1
    """A device."""
    gpus: int = 0
    """A device."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell before the worker, such as `module load cuda`."""
    extra: list[str] = field(default_factory=list)
    """More options of `sbatch` or `srun`, such as `--mem=64G`."""


@dataclass
class RayConfig:
    """Which Ray, and what of it a worker takes."""

    address: str | None = None
    """`host:port` of a cluster's head, or `auto` for the one that this machine is in; null: one is started
    here, and ends with the sweep."""
    resources: dict[str, str] = field(default_factory=lambda: {"cpu": "CPU", "cuda": "GPU", "tpu": "TPU"})
    """By cluster.platform, the resource of which a worker takes one a device."""


@dataclass
class EngineConfig:
    name: str = "local"
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    isolation: Isolation = Isolation.block
    workers: int = 0
    """Workers at a time; 0: one a core, as memory allows."""
    schedule: Schedule = Schedule.queue
    devices: int = 0
    """Devices that the sweep is placed on, which gives each run its width; 0: each run keeps the mesh that
    it has, and as many train as there are workers."""
    processes: int = 1
    """That each run is trained by, its devices shared out among them; above 1 each run has workers of its
    own, whatever `isolation` says."""
    dry_run: bool = False
    """Print the plan, and train and write nothing (`harness sweep OVERRIDES --dry-run`)."""
    attempts: int = 3
    backoff_seconds: float = 1.0
    stall_seconds: float = 300.0
    """A worker without progress for so long is ended and its runs restarted."""
    on_failure: OnFailure = OnFailure["continue"]


@dataclass
class ResumeConfig:
    allow_drift: bool = False
    """Continue an unfinished run although the code changed (recorded, and shown as MIXED_CODE)."""
    replan: bool = False
    """Give unfinished blocks a new placement and start them over."""
