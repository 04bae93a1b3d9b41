"""Young, Daly and goodput against their closed forms, a simulation, and what was published."""

import math

import numpy as np
import pytest

from harness.estimate.clusters import gigawatt_hours, load_cluster, machine_watts, meter_watts
from harness.plan.allocation.reliability import (
    RecoveryCosts,
    daly_interval,
    goodput,
    recovery_options,
    young_interval,
)

SHORT, LONG = RecoveryCosts("15 s saves", 15 / 3600, 10 / 60), RecoveryCosts("60 s saves", 60 / 3600, 10 / 60)
"""Full restarts of ten minutes: the assumptions under which PLANNING's ranges come out."""


def mtbf(chips: int) -> float:
    return load_cluster("h100_16k").partition().mtbf_hours(chips)


def test_llama_3_was_interrupted_every_three_hours():
    assert mtbf(16_384) == pytest.approx(54 * 24 / 419, rel=0.01)
    assert 54 * 24 / mtbf(16_384) == pytest.approx(419, rel=0.01)


@pytest.mark.parametrize(("chips", "low", "high"), [(16_384, 0.84, 0.90), (100_000, 0.41, 0.57)])
def test_goodput_of_full_restarts_is_what_planning_says(chips, low, high):
    worse, better = goodput(LONG, mtbf(chips)), goodput(SHORT, mtbf(chips))
    assert low - 0.01 <= worse < better <= high + 0.01


@pytest.mark.parametrize("chips", [262_144, 550_000])
def test_with_full_restarts_nothing_is_left_of_the_largest_machines(chips):
    assert goodput(SHORT, mtbf(chips)) == goodput(LONG, mtbf(chips)) == 0


def test_young_is_the_minimum_of_what_saves_and_losses_cost():
    save, mean = 0.05, 5.0
    cost = {tau: save / tau + tau / (2 * mean) for tau in np.linspace(0.1, 3, 2901)}
    assert young_interval(save, mean) == pytest.approx(min(cost, key=lambda tau: cost[tau]), abs=2e-3)


def test_daly_is_the_minimum_of_the_exact_run_time():
    save, mean, restart = 0.05, 5.0, 0.2

    def hours(tau: float) -> float:
        return mean * math.exp(restart / mean) * (math.exp((tau + save) / mean) - 1) / tau

    grid = np.linspace(0.1, 3, 29_001)
    assert daly_interval(save, mean) == pytest.approx(min(grid, key=hours), rel=0.01)
    assert daly_interval(2.0, 0.9) == 0.9


def test_goodput_is_that_of_a_simulated_run():
    mean, recovery = 10.0, RecoveryCosts("", 0.05, 0.3)
    tau = daly_interval(recovery.save_hours, mean)
    rng = np.random.default_rng(0)
    clock = done = 0.0
    for _ in range(20_000):
        left = rng.exponential(mean)
        done += tau * int(left / (tau + recovery.save_hours))
        clock += left + recovery.restart_hours
    assert goodput(recovery, mean) == pytest.approx(done / clock, abs=0.01)


def test_each_way_to_recover_helps_where_failures_are_frequent():
    cluster = load_cluster("colossus2")
    ways = recovery_options(cluster, cluster.partition(), 131_072, 1e9, copies=4)
    good = [way.goodput for way in ways]
    assert good == sorted(good)
    assert good[-1] > 0.8
    assert [way.name for way in ways][-1].startswith("elastic")
    assert recovery_options(cluster, cluster.partition(), 500_000, 1e9, copies=1)[0].goodput == 0


def test_energy_is_chips_times_watts_times_overhead():
    cluster = load_cluster("h100_16k")
    watts = meter_watts(cluster, cluster.partition(), 16_384)
    assert watts == pytest.approx(16_384 * 1275 * 1.15)
    assert gigawatt_hours(watts, 54) == pytest.approx(watts * 54 * 24 / 1e9)


def test_a_gigawatt_does_not_feed_550_000_at_full_load():
    cluster = load_cluster("colossus2")
    assert cluster.site_watts
    assert machine_watts(cluster) == meter_watts(cluster, cluster.partition(), 550_000) > cluster.site_watts
