"""A sweep at work without training: a writer that leaves what workers leave, as fast as it is called."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from harness.core import atomic_files
from harness.records.paths import RunDir, SweepDir
from harness.records.run import metrics
from harness.records.run.status import ProcessInfo, State, Status, read_status, write_status
from tests.compare.synthetic import Draft, Recipe, draw, write_rule, write_run

START = 1_800_000_000.0
"""UTC seconds at which the sweep begins."""
STEP_SECONDS = 0.5


class SimulatedSweep:
    """Runs that are all queued at first; `advance` trains one of them up to a step."""

    def __init__(self, path: Path, recipe: Recipe | None = None) -> None:
        import numpy as np

        self.recipe = recipe or Recipe(scales={"xs": 10**7, "s": 3 * 10**7}, branches=(), points=8)
        self.sweep = SweepDir(path)
        self.clock = START
        self._drafts: dict[str, Draft] = {}
        write_rule(self.sweep, self.recipe)
        rng = np.random.default_rng(self.recipe.rng)
        for scale in self.recipe.scales:
            for seed in self.recipe.seeds:
                shared = rng.normal()
                for variant in self.recipe.variants:
                    self._queue(draw(self.recipe, scale, variant, seed, shared, rng))

    def _queue(self, draft: Draft) -> None:
        self._drafts[f"{draft.scale}/{draft.variant}/seed{draft.seed}"] = draft
        empty = dataclasses.replace(
            draft,
            status={"state": "pending", "steps": self.recipe.steps},
            evals=[],
            steps=[],
            branches={},
            ended=False,
        )
        run = write_run(self.sweep, empty)
        for part in run.metrics.iterdir():
            part.unlink()

    @property
    def names(self) -> list[str]:
        """Names of the runs, as the lanes take them."""
        return [*self._drafts]

    def run(self, name: str) -> RunDir:
        """Directory of a run."""
        return RunDir(self.sweep.path / name)

    def advance(self, name: str, steps: int, *, is_saved: bool = True) -> None:
        """Train a run for so many steps, save it, and end it if these are its last."""
        run, draft, status = self.run(name), self._drafts[name], read_status(self.run(name))
        if status.step == 0:
            self._enter(run, "start", 0)
            self._enter(run, "train", 0)
        step = min(status.step + steps, self.recipe.steps)
        self.clock += STEP_SECONDS * (step - status.step)
        first = metrics.list_parts(run, "steps")[-1].end if metrics.list_parts(run, "steps") else 0
        if is_saved:
            for kind, rows in (("steps", draft.steps), ("evals", draft.evals)):
                new_rows = [row for row in rows if first < row["step"] <= step]
                metrics.write_part(run, kind, first, step, new_rows)
            self._enter(run, "save", step)
        is_end = step == self.recipe.steps
        tokens = step * draft.status["tokens"] // self.recipe.steps
        state = State.finished if is_end else State.running
        writer, loss = None if is_end else ProcessInfo.current(), draft.steps[step - 1]["loss"]
        counts = {"step": step, "steps": self.recipe.steps, "tokens": tokens, "attempt": 1}
        write_status(run, Status(state, **counts, phase="train", loss=loss, writer=writer))
        self._enter(run, "end" if is_end else "train", step)
        if is_end:
            metrics.merge_parts(run)
            atomic_files.write_checksummed_json(run.examples, draft.examples or {})

    def fail(self, name: str, message: str) -> None:
        """End a run with a failure."""
        status = read_status(self.run(name))
        failed = dataclasses.replace(status, state=State.failed, message=message, writer=None)
        write_status(self.run(name), failed)

    def finish(self) -> None:
        """Train all runs to their end."""
        for name in self.names:
            self.advance(name, self.recipe.steps)

    def _enter(self, run: RunDir, phase: str, step: int) -> None:
        line = {"time": self.clock, "phase": phase, "attempt": 1, "width": 1, "step": step, "share": 1.0}
        with run.timeline.open("a") as file:
            file.write(json.dumps(line) + "\n")
