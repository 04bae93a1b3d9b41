"""Typed config nodes of the engine that starts runs, of retries and of resuming."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Isolation(Enum):
    """Runs that share a worker process: the variants of a block, none, or the whole sweep (one process owns
    every device of a host)."""

    block = "block"
    run = "run"
    all = "all"


class Submit(Enum):
    """Slurm unit of a worker: its own job, or a step in the allocation that contains the driver."""

    jobs = "jobs"
    steps = "steps"


class Schedule(Enum):
    """Order of runs: the longest first as devices become free, or all at once."""

    queue = "queue"
    static = "static"


OnFailure = Enum("OnFailure", {"continue": "continue", "stop_block": "stop_block", "stop_all": "stop_all"})
"""Extent of a permanent failure: the run, its block, or the sweep stops. Made by a call because `continue`
is a keyword and OmegaConf reads enums by name."""


@dataclass
class SlurmConfig:
    """Slurm request of one worker. Null means the default of the site."""

    submit: Submit = Submit.jobs
    """Slurm unit of each worker: jobs or steps."""
    partition: str | None = None
    """Partition, as for `sbatch --partition`."""
    account: str | None = None
    """Account, as for `sbatch --account`."""
    time_limit: str | None = None
    """Time limit of a job, as for `sbatch --time`."""
    save_seconds: int = 120
    """Seconds before the time limit at which a worker saves and leaves; it is resubmitted and continues."""
    constraint: str | None = None
    """Features that each node must have, so that all variants of a block get equal nodes."""
    nodelist: str | None = None
    """Nodes, as for `sbatch --nodelist`."""
    cpus: int = 1
    """Number of CPUs per device."""
    gpus: int = 0
    """Number of GPUs per device."""
    setup: list[str] = field(default_factory=list)
    """Shell lines that run before the worker, such as `module load cuda`."""
    extra: list[str] = field(default_factory=list)
    """Additional options of `sbatch` or `srun`, such as `--mem=64G`."""


@dataclass
class RayConfig:
    """Ray cluster, and the Ray resources of a worker."""

    address: str | None = None
    """`host:port` of the cluster's head, or `auto` for the cluster of this machine; null starts a Ray here
    that ends with the sweep."""
    resources: dict[str, str] = field(default_factory=lambda: {"cpu": "CPU", "cuda": "GPU", "tpu": "TPU"})
    """Ray resource by cluster.platform; a worker takes one per device."""


@dataclass
class EngineConfig:
    """Engine that starts the workers of a sweep, and its retries."""

    name: str = "local"
    """Engine: local, slurm or ray."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    isolation: Isolation = Isolation.block
    """Runs that share a worker process: block, run or all."""
    workers: int = 0
    """Maximum number of workers at a time; 0 means one per core, as memory allows. The runs of a worker take
    turns on its cores if these simulate the devices."""
    schedule: Schedule = Schedule.queue
    """Order of runs: queue or static."""
    devices: int = 0
    """Number of devices that the sweep is placed on, which sets the mesh of each run; 0 keeps each run's own
    mesh and trains as many runs at a time as there are workers."""
    plan: str | None = None
    """File of `harness plan` (plan.json) from which each run takes the mesh, micro-batches and remat of its
    name; null: those of the config."""
    processes: int = 1
    """Number of processes that share each run's devices; above 1, each run has its own workers."""
    dry_run: bool = False
    """Print the plan without training or writing anything (`harness sweep OVERRIDES --dry-run`)."""
    attempts: int = 3
    """Number of consecutive failures without progress after which a run is given up."""
    backoff_seconds: float = 1.0
    """Seconds to wait after the first failure; doubled by each further one."""
    stall_seconds: float = 300.0
    """Seconds without progress after which a worker is killed and its runs are restarted."""
    opaque_seconds: float = 3600.0
    """Seconds that a phase may take which cannot report progress: a compile, a restore, the end of a save.
    From then on it counts as one without progress."""
    on_failure: OnFailure = OnFailure["continue"]
    """Extent of a permanent failure: continue, stop_block or stop_all."""


@dataclass
class ResumeConfig:
    """Treatment of unfinished runs of an earlier launch."""

    allow_drift: bool = False
    """Continue unfinished runs although the code changed; recorded, and shown as MIXED_CODE."""
    replan: bool = False
    """Place unfinished blocks anew and restart them."""
