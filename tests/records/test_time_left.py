"""Time left of a sweep: simulated sweeps whose true rest is known."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from harness.records.run.pace import PredictedParts, RunCourse, run_course
from harness.records.run.status import State, Status
from harness.records.run.timeline import PhaseSpan
from harness.records.sweep.time_left import TimeLeft, time_left

SWEEPS = 100
STEPS, BRANCH_STEPS, EVALUATIONS = 100, 15, 5


@dataclass(frozen=True)
class SimulatedRun:
    """A run with its true phases: (phase, seconds, first step, last step, share)."""

    name: str
    predicted: PredictedParts
    phases: list[tuple[str, float, int, int, float]]
    start: float = 0.0

    @property
    def seconds(self) -> float:
        return sum(phase[1] for phase in self.phases)

    @property
    def first_step(self) -> float:
        return self.start + self.phases[0][1] + self.phases[1][1]

    def course(self, now: float) -> RunCourse:
        spans, moment, step = [], self.start, 0
        for phase, seconds, first, last, share in self.phases:
            end = min(now, moment + seconds)
            if end > moment:
                reached = first + round((last - first) * (end - moment) / seconds)
                spans.append(PhaseSpan(phase, moment, end, 1, 1, first, reached, share))
                step = reached if share == 1 else step
            moment += seconds
        state = State.finished if self.start + self.seconds <= now else State.running
        state = state if self.start <= now else State.pending
        return run_course(
            self.name, self.predicted, spans, Status(state, step), is_active=state is State.running
        )


def simulated_run(
    rng, name: str, startups: Sequence[float], train: float, factors: Sequence[float], wait: float
) -> SimulatedRun:
    """A run whose parts take `factors` times as long as predicted, and a scatter of its own. `startups`:
    seconds of its start as predicted, and before `factors`; it waits for `wait` seconds besides."""
    predicted = PredictedParts(startups[0], train, 0.4 * train, STEPS + BRANCH_STEPS)
    start, pace = factors[0] * startups[1] * scatter(rng, 0.15), factors[1] * train * scatter(rng, 0.08)
    step, pause = pace / (STEPS + BRANCH_STEPS), factors[2] * predicted.pauses * scatter(rng, 0.08)
    phases = [("start", 0.2 * start + wait, 0, 0, 1.0), ("compile", 0.8 * start, 0, 0, 1.0)]
    for index in range(EVALUATIONS):
        first, last = STEPS * index // EVALUATIONS, STEPS * (index + 1) // EVALUATIONS
        phases.append(("train", step * (last - first) * scatter(rng, 0.1), first, last, 1.0))
        phases.append(("evaluate", 0.8 * pause / EVALUATIONS, last, last, 1.0))
    phases += [("save", 0.1 * pause, STEPS, STEPS, 1.0), ("branch", 0.1 * pause, 50, 50, 0.5)]
    phases += [("train", step * BRANCH_STEPS, 50, 50 + BRANCH_STEPS, 0.5)]
    return SimulatedRun(name, predicted, phases)


def scatter(rng, sigma: float) -> float:
    return math.exp(sigma * rng.standard_normal())


def simulated_sweep(rng) -> list[SimulatedRun]:
    """Runs of one to three scales, largest first. Some workers take one block each, whose runs train side by
    side or in turn, each worker with another variant first. Predictions are off by a factor that all runs
    share, and by one of each scale. The first run of a variant at a scale compiles, whichever was predicted
    to, and others wait for it; the very first runs may wait for tokens."""
    scales, variants, seeds = rng.integers(1, 4), rng.integers(2, 4), rng.integers(1, 5)
    workers, side_by_side = rng.integers(1, 4), rng.random() < 0.5
    machine, tokens = scatter(rng, 0.5), rng.uniform(0, 40) * (rng.random() < 0.5)
    compile_seconds, size = rng.uniform(3, 30), rng.uniform(20, 200)
    common, factors = [machine * scatter(rng, 0.3), machine * scatter(rng, 0.3)], []
    for _ in range(scales):
        startup, train = common[0] * scatter(rng, 0.15), common[1] * scatter(rng, 0.2)
        factors.append((startup, train, train * scatter(rng, 0.25)))
    blocks = [(scale, seed) for scale in range(scales) for seed in range(seeds)]
    queue: list[tuple[float, int, list[tuple[int, int, int]]]] = [
        (0.0, worker, []) for worker in range(workers)
    ]
    runs: dict[str, SimulatedRun] = {}
    while queue:
        now, worker, waiting = heapq.heappop(queue)
        if not waiting and not blocks:
            continue
        if not waiting:
            scale, seed = blocks.pop(0)
            waiting = [(scale, (worker + index) % variants, seed) for index in range(variants)]
        ends = []
        for scale, variant, seed in waiting if side_by_side else waiting[:1]:
            compiles = not any(name.startswith(f"s{scale}/v{variant}/") for name in runs)
            startups = [1.0 + compile_seconds * cold for cold in (seed == 0, compiles)]
            name, wait = f"s{scale}/v{variant}/seed{seed}", tokens * (now == 0)
            starting = [run for run in runs.values() if run.name.startswith(f"s{scale}/v{variant}/")]
            wait += max([run.first_step - now for run in starting if run.first_step > now], default=0.0)
            run = simulated_run(rng, name, startups, size / 3**scale, factors[scale], wait)
            runs[name] = dataclasses.replace(run, start=now + rng.uniform(0.1, 0.6))
            ends.append(runs[name].start + runs[name].seconds)
        heapq.heappush(queue, (max(ends), worker, [] if side_by_side else waiting[1:]))
    return [runs[f"s{k}/v{v}/seed{i}"] for k in range(scales) for i in range(seeds) for v in range(variants)]


def shown(runs: list[SimulatedRun]) -> list[tuple[float, TimeLeft]]:
    """The true rest and the time left at every moment at which one is shown, 2 s apart."""
    end = max(run.start + run.seconds for run in runs)
    moments = np.arange(1.0, end, max(2.0, end / 30))
    lefts = [(end - now, time_left([run.course(now) for run in runs])) for now in moments]
    return [(rest, left) for rest, left in lefts if left is not None]


@pytest.fixture(scope="module")
def sweeps() -> list[tuple[float, list[tuple[float, TimeLeft]]]]:
    rng = np.random.default_rng(0)
    made = [simulated_sweep(rng) for _ in range(SWEEPS)]
    return [(max(run.start + run.seconds for run in runs), shown(runs)) for runs in made]


def test_the_range_holds_the_true_rest_from_its_first_showing_on(sweeps):
    inside = [[left.low <= rest <= left.high for rest, left in moments] for _, moments in sweeps if moments]
    assert np.mean([values[0] for values in inside]) >= 0.9
    assert np.mean([np.mean(values) for values in inside]) >= 0.9


def test_the_middle_is_near_and_no_number_is_absurd(sweeps):
    first = [abs(moments[0][1].middle / moments[0][0] - 1) for _, moments in sweeps if moments]
    late = [abs(left.middle - rest) / rest for _, moments in sweeps for rest, left in moments]
    assert np.median(first) <= 0.25
    assert np.median(late) <= 0.25
    assert max(left.middle / total for total, moments in sweeps for _, left in moments) < 1.7


def test_most_sweeps_show_a_time_left_before_their_middle(sweeps):
    early = [bool(moments) and moments[0][0] > 0.4 * total for total, moments in sweeps]
    assert np.mean(early) >= 0.75
