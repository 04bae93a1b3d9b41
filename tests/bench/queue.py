"""What a driver spends on each of 5,000 jobs in a queue: `python -m tests.bench.queue`.

`sbatch` and `squeue` are scripts of a few lines, so this is the driver's own cost with that of starting a
command; a controller's is not in it.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from rich.console import Console

from harness.config.schema.engine import SlurmConfig
from harness.launcher.engines.engine_api import WorkerSpec
from harness.launcher.engines.slurm.slurm_engine import SlurmEngine
from harness.launcher.run_directories import RunAction
from harness.launcher.runs import Run, run_dir, sweep_dir
from harness.launcher.workers.progress import make_display
from harness.launcher.workers.supervisor import Assignment, Supervisor
from harness.records.paths import SweepDir
from tests.launcher.support import config, facts

JOBS, LOOKS = 5000, 5

SBATCH = """#!/bin/sh
name=$(sed -n 's/^#SBATCH --job-name=//p' "$2")
last=$(sed -n 's/^#SBATCH --array=0-//p' "$2")
seq 0 "$last" | sed "s/.*/$$_& $name/" >> {folder}/jobs
echo $$
"""
SQUEUE = """#!/bin/sh
test -e {folder}/jobs || exit 0
awk '{{
    printf "%-20s%-20s%-12s%-60s%-200s", $1, "PENDING", 0, "Priority", $2
    printf "%-20s%-200s\\n", NR, ""
}}' {folder}/jobs
"""


def supervisor(runs: Path, assignments: list[Assignment]) -> Supervisor:
    sweep = SweepDir(runs / "trial")
    (sweep.path / "workers").mkdir(parents=True)

    def order(each: Assignment) -> WorkerSpec:
        return WorkerSpec(each.name, (each.runs[0].dir.path,), {}, sweep.worker_log(each.name))

    made = [run for each in assignments for run in each.runs]
    settings = made[0].config.engine
    engine = SlurmEngine(SlurmConfig(), sweep.path / "workers")
    display = make_display(made, Console(quiet=True), {})
    return Supervisor(engine, settings, display, JOBS, lambda _: RunAction.train, order, waiting=assignments)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
            (folder / name).write_text(text.format(folder=folder))
            (folder / name).chmod(0o755)
        os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
        made = [config(folder / "runs", seed=seed, workers=JOBS) for seed in range(JOBS)]
        runs = [Run(each, facts(each), run_dir(sweep_dir([each]), each)) for each in made]
        for run in runs:
            run.dir.path.mkdir(parents=True)
        measured = supervisor(
            folder / "runs", [Assignment(f"seed{i}", [run], 1) for i, run in enumerate(runs)]
        )
        begun = time.perf_counter()
        measured._start_waiting()
        measured._poll_workers()
        submitted = time.perf_counter()
        for _ in range(LOOKS):
            measured._poll_workers()
        looked = time.perf_counter()
    print(f"{JOBS:,} jobs: {1e3 * (submitted - begun) / JOBS:.2f} ms each to submit,", end=" ")
    print(f"{1e3 * (looked - submitted) / LOOKS / JOBS:.3f} ms each at every look")


if __name__ == "__main__":
    main()
