"""The timing pass on made-up clocks: order and length of the visits, growth, and the bound of time."""

from __future__ import annotations

import math

import pytest

from harness.compare.stats.speed_up import MAX_QUADS, MIN_QUADS, timing_ratio
from harness.inspection import timing_quads
from harness.inspection.timing_quads import (
    LIMIT_SECONDS,
    MIN_STEPS,
    VISIT_STEPS,
    WARMUP_STEPS,
    time_limit,
    time_quads,
    visit_steps,
)


class Machine:
    """Visits of known step times; a clock that only visits move. `noise`: relative, alternating a quad."""

    def __init__(self, monkeypatch, noise: dict[str, float]) -> None:
        self.noise, self.visits, self.now = noise, [], 0.0
        monkeypatch.setattr(timing_quads.time, "perf_counter", lambda: self.now)

    def __call__(self, variant: str, steps: int) -> list[float]:
        quad = self.visits.count(variant) // 2
        self.visits.append(variant)
        self.now += 1.0
        seconds = {"a": 1.0, "b": 1.1, "c": 0.9}[variant]
        return [seconds * math.exp(self.noise.get(variant, 0.0) * (-1) ** quad)] * steps


def test_each_treatment_takes_turns_with_the_control(monkeypatch):
    machine = Machine(monkeypatch, {})
    quads = time_quads("a", ["b", "c"], machine, 20, math.inf)
    assert machine.visits == list("abba" * MIN_QUADS + "acca" * MIN_QUADS)
    assert timing_ratio(quads["b"]).ratio == pytest.approx(1.1)
    assert timing_ratio(quads["c"]).ratio == pytest.approx(0.9)


def test_only_a_treatment_that_is_not_known_well_gets_more(monkeypatch):
    machine = Machine(monkeypatch, {"c": 0.02})
    quads = time_quads("a", ["b", "c"], machine, 20, math.inf)
    assert (len(quads["b"]), len(quads["c"])) == (MIN_QUADS, 32)
    wild = time_quads("a", ["c"], Machine(monkeypatch, {"c": 0.5}), 20, math.inf)
    assert len(wild["c"]) == MAX_QUADS


def test_the_pass_ends_with_its_time(monkeypatch):
    machine = Machine(monkeypatch, {"b": 0.5, "c": 0.5})
    quads = time_quads("a", ["b", "c"], machine, 20, 45.0)
    assert machine.now <= 45
    assert len(quads["b"]) == len(quads["c"]) == 5
    short = time_quads("a", ["b"], Machine(monkeypatch, {"b": 0.5}), 20, 1.0)
    assert len(short["b"]) == MIN_QUADS, "the first quads are timed in any case"


def test_a_slow_step_shortens_the_visits():
    assert visit_steps([0.002], 20.0) == VISIT_STEPS
    assert visit_steps([10.0, 10.0], 20.0) == MIN_STEPS
    steps = visit_steps([0.2], 20.0)
    assert MIN_STEPS < steps < VISIT_STEPS
    assert (
        2 * MIN_QUADS * 0.2 * (steps + WARMUP_STEPS) <= 20 < 2 * MIN_QUADS * 0.2 * (steps + 1 + WARMUP_STEPS)
    )


def test_a_long_training_allows_a_long_pass():
    assert time_limit(60) == LIMIT_SECONDS
    assert time_limit(36_000) == 720
