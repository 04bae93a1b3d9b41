"""Paths of a sweep and of its runs. Only this module knows file names."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NOISE_FLOORS = "aa_library.json"


class _File:
    """Attribute of a directory class: the path of a file or folder in the directory."""

    def __init__(self, name: str):
        self._name = name

    def __get__(self, directory: RunDir | SweepDir, owner: type) -> Path:
        return directory.path / self._name


@dataclass(frozen=True)
class RunDir:
    """Run directory `<scale>/<variant>/seed<k>/`, or a cooldown branch `branch<pct>/` inside one."""

    path: Path

    config = _File("config.yaml")
    """Resolved config (records.run.config_file)."""
    run = _File("run.json")
    """Provenance of the run (records.run.provenance)."""
    status = _File("status.json")
    """State and progress (records.run.status)."""
    metrics = _File("metrics")
    """Folder of the loss curves (records.run.metrics)."""
    checkpoints = _File("checkpoints")
    """Folder of the checkpoints and their manifests."""
    log = _File("log.txt")
    """Output of the worker about this run."""
    timeline = _File("timeline.jsonl")
    """Phases of the run over time (records.run.timeline). A branch is part of its parent's timeline."""
    training_target = _File("goal.json")
    """Share of the budget to train for now (records.run.training_target)."""
    examples = _File("examples.json")
    """Hash of the examples that a finished run consumed (records.run.example_hash)."""
    samples = _File("samples.json")
    """Distances of an image run's samples from real images (records.run.sample_quality)."""
    sample_grid = _File("samples.png")
    """Grid of an image run's samples."""
    profile = _File("profile")
    """Folder of the profiler trace, if one was requested."""
    worker_lock = _File("worker.lock")
    """Lock of the process that trains the run (records.run.run_lock)."""
    rendezvous = _File("meeting.json")
    """Address of process 0 of a multi-process run, and a secret, until all processes have joined."""

    def checkpoint(self, step: int) -> Path:
        """Return the folder of the checkpoint at a step."""
        return self.checkpoints / f"{step:08d}"

    def manifest(self, step: int) -> Path:
        """Return the manifest of the checkpoint at a step."""
        return self.checkpoints / f"{step:08d}.manifest.json"

    def branch(self, share: float) -> RunDir:
        """Return the cooldown branch that ends at this share of the token budget."""
        return RunDir(self.path / f"branch{round(share * 100)}")

    def superseded(self) -> Iterator[Path]:
        """Yield the folders for records of attempts under other code: `superseded/0`, `superseded/1`, ..."""
        yield from (self.path / "superseded" / str(number) for number in itertools.count())

    def branches(self) -> list[RunDir]:
        """Return the branches on disk, sorted by path."""
        return [RunDir(path.parent) for path in sorted(self.path.glob("branch*/run.json"))]


@dataclass(frozen=True)
class SweepDir:
    """Sweep directory `runs/<experiment>/`."""

    path: Path

    rule = _File("rule.json")
    """Frozen decision rule."""
    ledger = _File("sweep.json")
    """Ledger of decisions (records.sweep.ledger)."""
    driver_lock = _File("driver.lock")
    """Lock of the driver of the sweep."""
    stop_request = _File("stop.json")
    """Request to its driver to stop (records.sweep.stop_request), removed once it was answered."""
    comparison = _File("comparison.json")
    """Result of the last comparison."""
    timing = _File("timing.json")
    """Step times and peak memory of each variant, timed alone."""

    @property
    def tune(self) -> SweepDir:
        """Sweep that chose the learning rates of this one."""
        return SweepDir(self.path / "tune")

    learning_rates = _File("learning_rates.json")
    """Learning rates that a tuning sweep chose."""
    plan = _File("plan.json")
    """Saved result of `harness plan`."""
    report = _File("report.html")
    """HTML report."""
    pictures = _File("pictures")
    """Folder of the charts as files."""
    trackers = _File("trackers")
    """Folder of what trackers were sent (harness.trackers), and of the stores of those that are offline."""
    noise_floors = _File(NOISE_FLOORS)
    """Noise floors that a null sweep measured; they apply to every sweep beside it."""

    def worker_log(self, name: str) -> Path:
        """Return the log of a worker process, for output that belongs to no single run."""
        return self.path / "workers" / f"{name}.log"

    def run(self, scale: str, variant: str, seed: int) -> RunDir:
        """Return the directory of one run."""
        return RunDir(self.path / scale / variant / f"seed{seed}")

    def runs(self) -> Iterator[RunDir]:
        """Yield every launched run, sorted by path, without branches."""
        for file in sorted(self.path.glob("*/*/seed*/run.json")):
            yield RunDir(file.parent)


def _records() -> Iterator[Path]:
    sweep, trunk = SweepDir(Path()), RunDir(Path("*/*/seed*"))
    yield from (sweep.rule, sweep.ledger, sweep.timing, sweep.plan)
    yield from (sweep.noise_floors, sweep.tune.learning_rates)
    for run in (trunk, RunDir(trunk.path / "branch*")):
        yield from (run.config, run.run, run.status, run.timeline, run.training_target, run.examples)
        yield from (run.samples, run.sample_grid, run.metrics / "*.parquet")
        yield run.checkpoints / "*.manifest.json"


RUN = str(RunDir(Path("*/*/seed*")).run)
RECORDS = tuple(map(str, _records()))
"""Glob patterns of all files that comparing, watching and reporting read: no checkpoints, no logs."""
