"""Memory of a start: `python -m tests.bench.start [LAYERS]`, 20 layers (1.03 B parameters) without one.

Two processes with four simulated devices each make the state of step 0, parameters and moments, of a model
that is split over all eight. Neither may ever hold more than 1.2 times its share of the state and 1 GiB. The
machine needs 20 GiB of free memory for 1 B parameters.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

from harness.config.process_group import ProcessGroup, to_env
from harness.core.number_format import format_bytes, format_si
from tests.training.processes import environment
from tests.training.runs import prepare

SHAPE = ("model.width=2048", "model.heads=16", "model.head_width=128", "model.ffn=5632")
LAYOUT = ("mesh.fsdp=8", "compute.scan_layers=true", "schedule.branches=[]", "optimizer.learning_rate=1e-4")
FACTOR, REST = 1.2, 2**30
"""Limit of a process: so many times its share of the state, and so many bytes besides."""


def main(layers: int) -> int:
    """Start a model of so many layers; print figures of both processes; 1 if one held too much."""
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(Path(folder), *SHAPE, f"model.layers={layers}", *LAYOUT)
        group = ProcessGroup(2, uuid.uuid4().hex, "127.0.0.1")
        command = [sys.executable, "-m", "tests.bench.start_process", str(run.path)]
        processes = [
            subprocess.Popen(
                command, env=environment() | to_env(replace(group, index=index)), stdout=subprocess.PIPE
            )
            for index in range(group.count)
        ]
        results = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    for index, figures in enumerate(results):
        print(_line(index, figures))
    return int(any(figures["peak"] > _limit(figures) for figures in results))


def _limit(figures: dict[str, float]) -> float:
    return FACTOR * figures["share"] + REST


def _line(index: int, figures: dict[str, float]) -> str:
    share, peak, compiled = (format_bytes(figures[key]) for key in ("share", "peak", "compiled"))
    return (
        f"process {index} of a model of {format_si(figures['parameters'])}: share of the state {share}, "
        f"most memory {peak} (limit {format_bytes(_limit(figures))}; {compiled} before it drew anything), "
        f"drawn in {figures['seconds']:.0f} s, {figures['processor']:.0f} CPU-s in all"
    )


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
