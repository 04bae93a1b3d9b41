"""What a design can resolve, against simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats

from harness.compare.stats import paired_effects, power
from harness.compare.stats.observed_power import observe_power


def test_power_by_simulation():
    rng = np.random.default_rng(0)
    plan = power.plan_power({"s": 5}, sd=0.002)
    size = plan.rungs[0].detectable
    assert size
    draws = rng.normal(size, 0.002, (4000, 5))
    test: Any = scipy.stats.ttest_1samp(draws, 0.0, axis=1)
    found = test.pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.025)


def test_power_of_two_seeds_is_far_out_in_the_tail():
    rng = np.random.default_rng(0)
    size = power.plan_power({"s": 2}, sd=0.002, alpha=0.01, chance=0.9).rungs[0].detectable
    assert size
    draws = rng.normal(size, 0.002, (4000, 2))
    test: Any = scipy.stats.ttest_1samp(draws, 0.0, axis=1)
    found = test.pvalue < 0.01
    assert found.mean() == pytest.approx(0.9, abs=0.02)


def test_power_says_what_is_assumed():
    plan = power.plan_power({"xs": 3, "s": 1}, treatments=2, slopes={"xs": 0.5, "s": 0.4})
    assert plan.rungs[1].detectable is None
    assert plan.pooled_log_k is None
    assert plan.smallest_p == 0.125
    assert "Assumed" in plan.sentence
    assert "one seed" in plan.sentence
    floors = {"xs": paired_effects.NoiseFloor("xs", 0.001, 20)}
    known = power.plan_power({"xs": 3}, floors=floors, slopes={"xs": 0.5})
    assert "A/A library" in known.assumption
    assert known.rungs[0].detectable < plan.rungs[0].detectable / 5
    assert known.rungs[0].detectable_log_k == pytest.approx(known.rungs[0].detectable / 0.5)


def test_observed_noise_is_pooled_over_treatments_and_says_what_would_take_how_many_seeds():
    rng = np.random.default_rng(0)
    groups = [rng.normal(0.1, 0.02, 3), rng.normal(-0.3, 0.02, 3)]
    floors = {"m": paired_effects.NoiseFloor("m", 0.03, 8)}
    deltas = {"xs": groups, "m": groups, "one": [np.array([0.1])], "equal": [np.zeros(3)]}
    rows = observe_power(deltas, treatments=2, floors=floors, alpha=0.05)
    assert [row.scale for row in rows] == ["xs", "m"], "one pair, and pairs that do not differ, show no noise"
    small, known = rows
    pooled = np.sqrt(np.mean([group.var(ddof=1) for group in groups]))
    assert (small.observed_sd, small.df, small.seeds) == (pytest.approx(pooled), 4, 3)
    assert (small.planned_sd, small.assumed, known.planned_sd, known.assumed) == (0.005, True, 0.03, False)

    def detects(seeds):
        """The smallest effect at the noise that was seen, with tests at four scales as in the design."""
        plan = dict.fromkeys(("a", "b", "c"), 2) | {"xs": seeds}
        smallest = power.plan_power(plan, treatments=2, sd=small.observed_sd).rungs[-1].detectable
        assert smallest is not None
        return smallest

    assert small.observed_effect == pytest.approx(detects(3))
    assert detects(small.seeds_needed) <= small.planned_effect < detects(small.seeds_needed - 1)
    assert known.observed_effect < known.planned_effect


def test_no_number_of_seeds_is_named_beyond_reason():
    noisy = [np.random.default_rng(0).normal(0, 10, 3)]
    (row,) = observe_power({"xs": noisy}, treatments=1, floors={}, alpha=0.05)
    assert row.seeds_needed is None
