"""Conditions of a launch: load of others, speed of the machine, programs and tokens still to be made."""

from __future__ import annotations

import dataclasses
import os
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.launcher.cost import launch_conditions as conditions
from harness.launcher.cost import machine_speed, measurements, step_cost
from harness.launcher.cost import reference_machine as reference
from harness.launcher.cost.launch_conditions import launch_conditions, seconds_besides_runs
from harness.launcher.cost.machine_speed import MachineSpeed
from harness.launcher.cost.step_cost import LaunchConditions, estimate_run
from harness.launcher.runs import Run, sweep_dir
from harness.records.run.provenance import SourceFacts
from tests.launcher.test_step_cost import STEP_SECONDS, STEPS, finish, observed, own_cache, run_of  # noqa: F401


class TestLoad:
    def test_what_neighbours_took_is_left_out(self, tmp_path):
        alone = estimate_run(run_of(tmp_path), 1, 1.0, [observed(1e9)])
        beside = estimate_run(run_of(tmp_path), 1, 1.0, [observed(0.6e9, busy=0.4)])
        assert beside.train == pytest.approx(alone.train)
        assert observed(1e9, busy=0.4, crowd=0.5).idle_rate == 1e9, "enough cores were left for its lanes"

    def test_neighbours_that_are_here_now_slow_every_part_down(self, tmp_path):
        alone, beside = (
            estimate_run(run_of(tmp_path), 1, 1.0, [observed(1e9)], LaunchConditions(demand=demand))
            for demand in (0.0, 0.5)
        )
        assert beside.seconds == pytest.approx(1.5 * alone.seconds)
        assert beside.high / beside.low == pytest.approx(1.5 * alone.high / alone.low), "they may leave"

    def test_free_cores_are_enough(self, tmp_path):
        lanes = [observed(1e9, crowd=0.5)]
        alone, beside = (
            estimate_run(run_of(tmp_path), 1, 0.5, lanes, LaunchConditions(demand=demand)).seconds
            for demand in (0.0, 0.5)
        )
        assert beside == alone

    def test_the_load_while_a_run_trained_is_stored_with_its_rate(self, tmp_path):
        run = run_of(tmp_path)
        finish(run, compile=4.0)
        history = SimpleNamespace(share=lambda start, end: 0.25 if start == 1e9 + 4.0 else None)
        measurements.record_timings(sweep_dir([run.config]), [run], 1.0, cast(Any, history))
        assert [each.busy for each in measurements.load_observations("cpu")] == [0.25]


class TestConditions:
    def test_the_machine_is_calibrated_once_and_only_without_earlier_runs(self, tmp_path, monkeypatch):
        speeds = iter([MachineSpeed(2 * reference.SPEED.arithmetic, 3 * reference.SPEED.compiling)])
        monkeypatch.setattr(machine_speed, "measure_machine", lambda: next(speeds))
        runs = [run_of(tmp_path)]
        assert launch_conditions(runs, [observed()], None).speed is None
        for _ in range(2):
            speed = launch_conditions(runs, [], None).speed
            assert speed is not None
            assert (speed.arithmetic, speed.compiling) == pytest.approx((2, 3))
        slurm = run_of(tmp_path)
        slurm.config.engine.name = "slurm"
        assert launch_conditions([slurm], [], None).speed is None, "its machines are others"

    def test_seeds_share_a_program_and_an_earlier_sweep_has_compiled_it(self, tmp_path):
        runs = [run_of(tmp_path, variant=variant, seed=seed) for seed in (0, 1) for variant in "ab"]
        known = observed(program=step_cost.program_hash(runs[0].config))
        assert launch_conditions(runs, [observed()], None).compiling == {runs[0].name, runs[1].name}
        assert launch_conditions(runs, [known], None).compiling == {runs[1].name}

    def test_a_full_machine_is_judged_by_what_a_thread_gets_there(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        monkeypatch.setattr(conditions, "share_of_a_core", lambda: 2 / 7)
        for share, demand in ((None, 0.0), (0.2, 0.2), (0.6, 3.0)):  # 6 threads and this one on 2 cores
            load: Any = SimpleNamespace(share=lambda share=share: share)
            assert launch_conditions([run_of(tmp_path)], [observed()], load).demand == pytest.approx(demand)

    def test_tokens_are_made_once(self, tmp_path):
        def described(run: Run) -> Run:
            source = SourceFacts("c", 1, 1, 6_000_000, False, 0.0, "documents", [], {})
            return dataclasses.replace(run, facts=dataclasses.replace(run.facts, sources={"x": source}))

        runs = [described(run_of(tmp_path, seed=seed)) for seed in (0, 1)]
        known = [observed(data=step_cost.data_hash(runs[0].config, runs[0].facts))]
        fresh, later = (seconds_besides_runs(runs, seen, LaunchConditions()) for seen in ([], known))
        assert later == reference.DRIVER_SECONDS
        assert fresh - later == pytest.approx(6_000_000 / reference.TOKENIZE_RATE)


def test_the_calibration_takes_the_time_that_it_is_given_and_finds_a_computer():
    start = time.thread_time()
    speed = machine_speed.measure_machine(0.1)
    assert time.thread_time() - start < 1.0
    assert speed.arithmetic > 1e8
    assert speed.compiling > 0


def test_the_share_of_a_core_is_one_of_a_thread(monkeypatch):
    assert 0.0 < machine_speed.share_of_a_core(0.05) <= 1.0
    monkeypatch.setattr(machine_speed, "_BUSY_LOOP", "raise SystemExit(1)")
    assert machine_speed.share_of_a_core(0.05) == 1.0, "nobody knows"
