"""What a design can resolve, against simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats

from harness.compare.stats import paired_effects, power


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
