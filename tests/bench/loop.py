"""The training loop against the bare jitted step, in one process, turn by turn; and what a checkpoint stalls.

`python -m tests.bench.loop FOLDER STEPS OVERRIDES...` prints JSON, a list by round: seconds of `bare` and
`loop` steps in alternating stretches, of each `save` (until the loop goes on), and what the stretch `after`
it takes longer while the state is written in the background.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from harness.core.jax_setup.cpu_flags import cpu_env

os.environ.update(cpu_env(2))

import jax

from harness.config.compose import compose
from harness.data import Reader, open_data
from harness.models import build
from harness.training.loop import Progress, RunIO, train_segment
from harness.training.output.checkpointer import Checkpointer
from harness.training.output.run_writer import RunWriter
from harness.training.programs.run_programs import make_run_programs
from harness.training.schedule import Segment
from harness.training.step_inputs import StepInputs
from tests.prepared import prepare_run

ROUNDS = 6


def main(folder: Path, steps: int, overrides: list[str]) -> None:
    config = compose(overrides)
    run = prepare_run(folder, config)
    corpus = open_data(config.data)
    reader = Reader(corpus.sampler(config.scale.batch, config.data_seed))
    devices = jax.devices()[: config.mesh.data]
    lane = make_run_programs(
        config, build(config, 512), devices, reader.get, corpus.heldout(config.evaluation.tokens)
    )
    lane.prepare()
    journal, saver = RunWriter(run, steps, 0, 1), Checkpointer(run, config.checkpoint)
    desk = RunIO(journal, saver, "bench", "bench", threading.Event())
    here = Progress(0, lane.init_state(), "", 0.0)
    results = {"bare": [], "loop": [], "save": [], "after": []}
    for _ in range(ROUNDS):
        state, first = here.state, here.step
        tokens = lane.put_batch(reader.get(first))
        metrics, start = None, time.perf_counter()
        for _ in range(steps):
            state, metrics = lane.step(state, tokens, StepInputs(1e-3))
        jax.block_until_ready((state, metrics))
        results["bare"].append((time.perf_counter() - start) / steps)

        # A course without its last steps' evaluation and save: those are measured apart.
        course = Segment(first, first + steps, 0, 0, share=0.5)
        loop_lane: Any = Unevaluated(lane)
        loop_io: Any = Unsaved(desk)
        start = time.perf_counter()
        here = train_segment(loop_lane, course, Progress(first, state, "", 0.0), loop_io)
        jax.block_until_ready(here.state)
        results["loop"].append((time.perf_counter() - start) / steps)

        start = time.perf_counter()
        desk.save(here)
        results["save"].append(time.perf_counter() - start)
        state, start = here.state, time.perf_counter()
        for _ in range(steps):
            state, metrics = lane.step(state, tokens, StepInputs(1e-3))
        jax.block_until_ready((state, metrics))
        saver.wait()
        results["after"].append(time.perf_counter() - start - steps * results["bare"][-1])
        here = Progress(here.step, state, "", 0.0)
    print(json.dumps(results))


class Unevaluated:
    """A lane that skips the evaluation at the end of a course."""

    def __init__(self, lane):
        self._lane = lane

    def __getattr__(self, name):
        return getattr(self._lane, name)

    def evaluate(self, state):
        return {}


class Unsaved:
    """A desk that skips the save at the end of a course."""

    def __init__(self, desk):
        self._desk = desk

    def __getattr__(self, name):
        return getattr(self._desk, name)

    def save(self, here):
        pass


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
