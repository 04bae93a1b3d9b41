"""Where everything of a sweep and of a run lies on disk. The only place that knows file names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NOISE_FLOORS = "aa_library.json"


@dataclass(frozen=True)
class RunDir:
    """`<scale>/<variant>/seed<k>/`, or a cooldown branch inside one."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def run(self) -> Path:
        return self.path / "run.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def timeline(self) -> Path:
        """What its lane was doing when (records.run.timeline); a branch stands in its parent's."""
        return self.path / "timeline.jsonl"

    @property
    def training_target(self) -> Path:
        """How far to train for now (records.run.training_target)."""
        return self.path / "goal.json"

    @property
    def examples(self) -> Path:
        """Which examples a finished run consumed (records.run.example_hash)."""
        return self.path / "examples.json"

    @property
    def samples(self) -> Path:
        """Of a run of images: how far its samples are from real ones (records.run.sample_quality)."""
        return self.path / "samples.json"

    @property
    def sample_grid(self) -> Path:
        """Of a run of images: a grid of its samples."""
        return self.path / "samples.png"

    @property
    def profile(self) -> Path:
        """A trace of a few of its steps, where one was asked for."""
        return self.path / "profile"

    @property
    def worker_lock(self) -> Path:
        """Held by the process that trains the run (records.run.run_lock)."""
        return self.path / "worker.lock"

    @property
    def rendezvous(self) -> Path:
        """Where process 0 of several waits for the others, until they have come."""
        return self.path / "meeting.json"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"{step:08d}"

    def manifest(self, step: int) -> Path:
        return self.checkpoints / f"{step:08d}.manifest.json"

    def branch(self, share: float) -> RunDir:
        """The cooldown branch that ends at this share of the token budget."""
        return RunDir(self.path / f"branch{round(share * 100)}")

    def branches(self) -> list[RunDir]:
        return [RunDir(path.parent) for path in sorted(self.path.glob("branch*/run.json"))]


@dataclass(frozen=True)
class SweepDir:
    """`runs/<experiment>/`."""

    path: Path

    @property
    def rule(self) -> Path:
        return self.path / "rule.json"

    @property
    def ledger(self) -> Path:
        return self.path / "sweep.json"

    @property
    def driver_lock(self) -> Path:
        return self.path / "driver.lock"

    @property
    def comparison(self) -> Path:
        return self.path / "comparison.json"

    @property
    def timing(self) -> Path:
        """What a timing pass measured, variant by variant, alone."""
        return self.path / "timing.json"

    @property
    def tune(self) -> SweepDir:
        """The sweep that chose the learning rates of this one."""
        return SweepDir(self.path / "tune")

    @property
    def learning_rates(self) -> Path:
        """In a tune sweep: what it found."""
        return self.path / "learning_rates.json"

    @property
    def plan(self) -> Path:
        """What a plan of it said, where that was kept."""
        return self.path / "plan.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def noise_floors(self) -> Path:
        """Of a null sweep: its noise floors, for every sweep beside it."""
        return self.path / NOISE_FLOORS

    def worker_log(self, name: str) -> Path:
        """What a worker process said that belongs to no lane, such as its last words."""
        return self.path / "workers" / f"{name}.log"

    def run(self, scale: str, variant: str, seed: int) -> RunDir:
        return RunDir(self.path / scale / variant / f"seed{seed}")

    def runs(self) -> Iterator[RunDir]:
        """Every run that was launched, by path; branches are reached through their parents."""
        for file in sorted(self.path.glob("*/*/seed*/run.json")):
            yield RunDir(file.parent)


def _records() -> Iterator[Path]:
    sweep = SweepDir(Path())
    yield from (
        sweep.rule,
        sweep.ledger,
        sweep.timing,
        sweep.plan,
        sweep.noise_floors,
        sweep.tune.learning_rates,
    )
    trunk = RunDir(Path("*/*/seed*"))
    for run in (trunk, RunDir(trunk.path / "branch*")):
        yield from (run.config, run.run, run.status, run.timeline, run.training_target, run.examples)
        yield from (
            run.samples,
            run.sample_grid,
            run.metrics / "*.parquet",
            run.checkpoints / "*.manifest.json",
        )


RUN = str(RunDir(Path("*/*/seed*")).run)
RECORDS = tuple(map(str, _records()))
"""Patterns of what is read when a sweep is compared, watched or reported: neither checkpoints nor logs."""
