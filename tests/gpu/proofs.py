"""The proofs: each a few harness commands on one accelerator, and a row of the table."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.estimate.clusters import Chip

STEPS, SAVE = 50, 25
"""Steps of each run, and steps between its checkpoints."""
VARIANTS = ("mha", "gqa")


@dataclass(frozen=True)
class Row:
    """A line of the table. `holds` is None for a figure without a limit."""

    question: str
    answer: str
    holds: bool | None = None


@dataclass(frozen=True)
class Proofs:
    """The pair of one size, with its `overrides` for model and machine, in the sweep folder `runs`/gpu."""

    overrides: Sequence[str]
    size: str
    runs: Path
    tokens_per_step: int
    chip: Chip

    def train_pair(self) -> Row:
        """Train both variants for STEPS steps."""
        start = time.perf_counter()
        self._harness("sweep", *self._sweep)
        seconds = time.perf_counter() - start
        return Row(
            f"{' and '.join(VARIANTS)}, {STEPS} steps each", f"{seconds:.0f} s with start and compile", True
        )

    def resume_bitwise(self) -> Row:
        """Replay the steps after the checkpoint in a new process, and compare every bit."""
        steps = STEPS - SAVE
        output = self._harness(
            "verify", f"{self._run(VARIANTS[0])}@{SAVE}", "--steps", str(steps), check=False
        )
        equal = output.returncode == 0
        last = output.stdout.strip().rpartition("\n")[2]
        return Row(f"{steps} steps from the checkpoint again, bit by bit", "equal" if equal else last, equal)

    def two_lanes(self) -> Row:
        """Ask for two lanes where there is one device: they have to be refused, or to share it."""
        output = self._harness(
            "sweep", *self._sweep, "experiment_name=lanes", "engine.devices=2", check=False
        )
        sentence = output.stderr.strip().rpartition("\n")[2]
        refused = output.returncode == 2 and "Traceback" not in output.stderr
        return Row("two lanes on one device", f"refused: {sentence}" if refused else "both trained", refused)

    def time_and_memory(self) -> list[Row]:
        """Time both variants in turn, and compare step and memory with the plan."""
        block = self._python(
            "-m", "harness.inspection.step_benchmark", *map(self._run, VARIANTS), "--steps", "4"
        )
        measured = json.loads(block.stdout)["variants"]
        plan = json.loads(self._harness("plan", *self._sweep, "--json").stdout)
        planned = {run["name"].split("/")[1]: run for run in plan["runs"]}
        return [row for name in VARIANTS for row in self._compare(name, measured[name], planned[name])]

    def _compare(self, name: str, measured: dict[str, Any], planned: dict[str, Any]) -> list[Row]:
        seconds, peak = measured["step_seconds"], measured["peak_bytes"]
        expected = planned["step_seconds"]
        flops = planned["flops_per_token"] * self.tokens_per_step
        low, high = (sum(part[end] for part in planned["memory"].values()) for end in ("low", "high"))
        timed = f"{seconds * 1e3:.0f} ms, MFU {flops / seconds / self.chip.peak('bf16'):.1%}"
        value, bottom, top = (f"{expected[end] * 1e3:.0f}" for end in ("value", "low", "high"))
        span = f"plan {value} ms [{bottom}, {top}]"
        rows = [Row(f"step of {name}", f"{timed}; {span}", expected["low"] <= seconds <= expected["high"])]
        if peak is not None:
            answer = f"{peak / 2**30:.1f} GiB compiled; plan {low / 2**30:.1f} to {high / 2**30:.1f} GiB"
            rows.append(Row(f"memory of {name}", answer, peak <= high))
        return rows

    def _run(self, variant: str) -> str:
        return str(self.runs / "gpu" / self.size / variant / "seed0")

    @property
    def _sweep(self) -> list[str]:
        tokens = STEPS * self.tokens_per_step
        pair = ["experiment=attention", f"variant={','.join(VARIANTS)}", "seed=0"]
        rest = ["experiment_name=gpu", f"scale.tokens={tokens}", f"runs={self.runs}"]
        evaluation = ["evaluation.points=1", "evaluation.every_tokens=null"]
        saves = [f"checkpoint.every={SAVE}", "checkpoint.every_minutes=null"]
        course = ["schedule.branches=[]", *evaluation, *saves]
        return [*pair, *rest, *course, *self.overrides]

    def _harness(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._python("-P", "-m", "harness", *arguments, check=check)

    def _python(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=check)
