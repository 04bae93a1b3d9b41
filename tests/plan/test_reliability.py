"""Young, Daly and goodput against their closed forms, a simulation, and what was published."""

import math

import numpy as np
import pytest

from harness.plan.cluster.clusters import load
from harness.plan.cluster.power import chips_within_power, draw, whole_draw
from harness.plan.cluster.reliability import Recovery, daly, goodput, interruptions, outlooks, young

SHORT, LONG = Recovery("15 s saves", 15 / 3600, 10 / 60), Recovery("60 s saves", 60 / 3600, 10 / 60)
"""Full restarts of ten minutes: the assumptions under which PLANNING's ranges come out."""


def mtbf(chips: int) -> float:
    return load("h100_16k").part().mtbf_hours(chips)


def test_llama_3_was_interrupted_every_three_hours():
    assert mtbf(16_384) == pytest.approx(54 * 24 / 419, rel=0.01)
    assert interruptions(54, mtbf(16_384)) == pytest.approx(419, rel=0.01)


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
    assert young(save, mean) == pytest.approx(min(cost, key=lambda tau: cost[tau]), abs=2e-3)


def test_daly_is_the_minimum_of_the_exact_run_time():
    save, mean, restart = 0.05, 5.0, 0.2

    def hours(tau: float) -> float:
        return mean * math.exp(restart / mean) * (math.exp((tau + save) / mean) - 1) / tau

    grid = np.linspace(0.1, 3, 29_001)
    assert daly(save, mean) == pytest.approx(min(grid, key=hours), rel=0.01)
    assert daly(2.0, 0.9) == 0.9


def test_goodput_is_that_of_a_simulated_run():
    mean, recovery = 10.0, Recovery("", 0.05, 0.3)
    tau = daly(recovery.save, mean)
    rng = np.random.default_rng(0)
    clock = done = 0.0
    for _ in range(20_000):
        left = rng.exponential(mean)
        done += tau * int(left / (tau + recovery.save))
        clock += left + recovery.restart
    assert goodput(recovery, mean) == pytest.approx(done / clock, abs=0.01)


def test_each_way_to_recover_helps_where_failures_are_frequent():
    cluster = load("colossus2")
    ways = outlooks(cluster, cluster.part(), 131_072, 1e9, copies=4)
    good = [way.goodput for way in ways]
    assert good == sorted(good)
    assert good[-1] > 0.8
    assert [way.recovery.name for way in ways][-1].startswith("elastic")
    assert not outlooks(cluster, cluster.part(), 500_000, 1e9, copies=1)[0].feasible


def test_energy_is_chips_times_watts_times_overhead():
    cluster = load("h100_16k")
    drawn = draw(cluster, cluster.part(), 16_384)
    assert drawn.watts == pytest.approx(16_384 * 1275 * 1.15)
    assert drawn.gigawatt_hours(54) == pytest.approx(drawn.watts * 54 * 24 / 1e9)


def test_a_gigawatt_does_not_feed_550_000_at_full_load():
    cluster = load("colossus2")
    assert not whole_draw(cluster).possible
    fed = chips_within_power(cluster, cluster.part())
    assert draw(cluster, cluster.part(), fed).possible
    assert not draw(cluster, cluster.part(), fed + 1).possible
