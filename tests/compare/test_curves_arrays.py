"""The parts of a verdict say the same of polars columns as of numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from harness.compare import (
    compute_multiplier,
    fit_ladder,
    fit_scaling_law,
    horizon_slope,
    paired_effect,
    plan_power,
    pooled_multiplier,
    project,
    sign_flip,
    trajectory_band,
    trend,
    welch_effect,
)

ENDS = pl.DataFrame({"seed": [0, 1, 2, 3], "a": [3.01, 3.12, 3.2, 3.05], "b": [2.9, 3.0, 3.15, 3.0]})
LADDER = pl.DataFrame({"flops": [1e15, 1e16, 1e17, 1e18, 1e19], "loss": [4.0, 3.6, 3.3, 3.1, 2.95]})


def both(frame: pl.DataFrame, *names: str):
    return [frame[name] for name in names], [frame[name].to_numpy() for name in names]


@pytest.mark.parametrize("part", [paired_effect, welch_effect])
def test_effects(part):
    columns, arrays = both(ENDS, "a", "b")
    assert part(*columns) == part(*arrays) == part(*[list(values) for values in arrays])
    assert part(*columns).mean == pytest.approx(np.mean(arrays[1]) - np.mean(arrays[0]))


def test_slopes_multipliers_and_what_is_made_of_them():
    columns, arrays = both(ENDS, "a", "b")
    slope = horizon_slope(columns[0] + 0.3, columns[0], 2.0)
    assert slope == horizon_slope(arrays[0] + 0.3, arrays[0], 2.0)
    k = compute_multiplier(paired_effect(*columns), slope)
    assert pooled_multiplier([k, k]) is not None
    flops = LADDER["flops"]
    for part in (trend, project):
        assert part(flops.log(), [k] * 5) == part(np.log(flops.to_numpy()), [k] * 5) is not None
    columns, arrays = both(LADDER, "flops", "loss")
    assert fit_ladder(*columns) == fit_ladder(*arrays) is not None


def test_differences():
    columns, arrays = both(ENDS, "a", "b")
    difference: Any = columns[1] - columns[0]
    assert sign_flip([difference]) == sign_flip([arrays[1] - arrays[0]]) == 0.125
    assert trajectory_band(difference) == trajectory_band(arrays[1] - arrays[0])


def test_a_scaling_law_from_the_columns_of_a_frame():
    n, d = np.meshgrid([1e7, 1e8, 1e9, 1e10], [1e9, 1e10, 1e11, 1e12])
    loss = 1.8 + 480 / n**0.34 + 2000 / d**0.36
    frame = pl.DataFrame({"n": n.ravel(), "d": d.ravel(), "loss": loss.ravel()})
    found = fit_scaling_law(frame["n"], frame["d"], frame["loss"])
    assert found == fit_scaling_law(n, d, loss)
    assert pytest.approx(1.8, rel=1e-4) == found.E


def test_a_null_is_a_loss_that_is_not_finite():
    assert paired_effect(pl.Series([3.0, None]), pl.Series([2.9, 3.0])).flags == ("DIVERGED",)


def test_power_from_a_column_of_counts():
    counts = pl.DataFrame({"scale": ["xs", "xs", "s", "s", "s"]})["scale"].value_counts(sort=True)
    assert plan_power(dict(counts.iter_rows())) == plan_power({"s": 3, "xs": 2})
