"""Promotion: four criteria, each with what was measured, and loss spikes counted from the runs themselves."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from harness.compare import compare
from harness.compare.results.verdict_types import Criterion, GateResult
from harness.compare.verdict.promotion_gate import LEVEL_STEPS, decide_gate, find_spikes
from harness.records.paths import SweepDir
from tests.compare.synthetic import Recipe, surface, write_sweep

ONE = Recipe(
    scales={"xs": 10**7}, variants={"mha": 1.0, "hybrid": 1.05, "short": 0.7}, positive_control="short"
)
GATE = {"name": "promote", "quality": 0.01, "speed": 0.05, "memory": 0.05, "stability": 0.05}


def criteria(*values):
    names = ("quality", "speed", "memory", "stability")
    return [
        Criterion(n, None if v is None else v >= 0, v, 0.05, "") for n, v in zip(names, values, strict=True)
    ]


@pytest.mark.parametrize(
    ("values", "promote"),
    [
        ((0.1, 0.0, 0.0, 0.0), True),
        ((0.1, -0.04, 0.0, 0.0), True),
        ((0.1, -0.06, 0.0, 0.0), False),
        ((-0.04, 0.1, 0.1, 0.0), True),
        ((0.1, -0.04, -0.01, 0.0), False),
        ((0.1, None, 0.1, 0.1), False),
    ],
)
def test_three_won_and_the_fourth_within_its_margin(values, promote):
    assert decide_gate("b", criteria(*values)).promote is promote
    assert not decide_gate("b", criteria(*values), invalid=True).promote


def timing(seconds: float = 0.9, peak: float = 10, scale: str = "xs", scatter: float = 0.002):
    """As `harness.inspection.step_benchmark` prints it, with what the driver adds. The quads of a treatment
    lie `scatter` above and below, in logs."""
    control = {"step_seconds": 1.0, "peak_bytes": 10}
    own = {"step_seconds": seconds, "peak_bytes": peak}
    log = math.log(seconds) if seconds > 0 else math.nan
    quads = [[0.0, log + sign * scatter, log + sign * scatter, 0.0] for sign in (1, -1, 1, -1)]
    return {
        "scale": scale, "control": "mha", "steps": 20, "visits": {"hybrid": quads, "short": quads},
        "variants": {"mha": control, "hybrid": own, "short": own}, "key": {"block": "xs/seed0"},
        "others_share": 0.2, "seconds": 12.0,
    }  # fmt: skip


def earlier_timing(seconds: float):
    """As an earlier version wrote it: one turn each way."""
    times = {"mha": 1.0, "hybrid": seconds, "short": seconds}
    variants = {name: {"step_seconds": s, "turns": [s, s], "peak_bytes": 10} for name, s in times.items()}
    return {"scale": "xs", "steps": 8, "order": ["mha", "hybrid", "hybrid", "mha"], "variants": variants}


def gated(tmp_path, timed, edit=None, gate=GATE, recipe=ONE) -> SweepDir:
    made = dataclasses.replace(recipe, beside={"gate": gate})
    sweep = write_sweep(tmp_path / "sweep", made, edit)
    sweep.timing.write_text(json.dumps(timed))
    return sweep


def gates(*given, **options) -> tuple[GateResult, ...]:
    results = compare(gated(*given, **options)).gate
    assert results is not None
    return results


def criterion(tmp_path, name: str, timed=None, **options) -> Criterion:
    (result,) = gates(tmp_path, timing() if timed is None else timed, **options)
    return next(item for item in result.criteria if item.name == name)


def test_every_treatment_but_the_positive_control(tmp_path):
    (result,) = gates(tmp_path, timing())
    assert (result.variant, result.promote, result.won) == ("hybrid", True, 4)


def test_no_gate_unless_asked_for(tmp_path):
    assert compare(write_sweep(tmp_path / "sweep", ONE)).gate is None


def test_margins_are_those_of_the_rule(tmp_path):
    slow = timing(seconds=1.2)
    (refused,) = gates(tmp_path / "a", slow)
    assert not refused.promote
    assert refused.reason == "lost by over its margin: speed"
    (forgiven,) = gates(tmp_path / "b", slow, gate=GATE | {"speed": 0.3})
    assert forgiven.promote


def more_flops(draft):
    if draft.variant == "hybrid":
        draft.facts["flops_per_token"] *= 1.1


def test_speed_is_the_worse_of_step_time_and_flops(tmp_path):
    fast = criterion(tmp_path / "a", "speed", timing(0.9))
    assert (fast.passed, fast.value) == (True, pytest.approx(0.0))
    assert "step time 0.900 [0.897, 0.903] times the control's" in fast.detail
    assert "FLOPs per token 6e+07 against 6e+07" in fast.detail
    heavy = criterion(tmp_path / "b", "speed", timing(0.9), edit=more_flops)
    assert (heavy.passed, heavy.value) == (False, pytest.approx(-math.log(1.1)))
    slow = criterion(tmp_path / "c", "speed", timing(1.5), edit=more_flops)
    assert slow.value is not None
    assert -math.log(1.5) - 0.01 < slow.value < -math.log(1.5), "the worse end of the interval"


def test_a_wide_interval_does_not_pass_as_a_small_loss(tmp_path):
    close = criterion(tmp_path / "a", "speed", timing(0.99, scatter=0.001))
    vague = criterion(tmp_path / "b", "speed", timing(0.99, scatter=0.015))
    assert (close.passed, vague.passed) == (True, False)


def test_a_noisy_pass_on_a_shared_host_decides_nothing(tmp_path):
    noisy = timing(0.5, scatter=0.05)
    shared = criterion(tmp_path / "a", "speed", noisy)
    assert shared.passed is None
    assert "NOISY_TIMING" in shared.detail
    alone = criterion(tmp_path / "b", "speed", noisy | {"others_share": 0.0})
    assert alone.passed is True


def test_a_timing_of_an_earlier_version_has_a_ratio_without_interval(tmp_path):
    old = criterion(tmp_path / "a", "speed", earlier_timing(1.5), edit=more_flops)
    assert old.value == pytest.approx(-math.log(1.5))
    assert "step time 1.500 times the control's" in old.detail
    assert criterion(tmp_path / "b", "speed", earlier_timing(0.9)).passed is True


@pytest.mark.parametrize(
    "timed",
    [{}, {"variants": 3}, {"scale": "xs", "variants": {"mha": {"step_seconds": 1.0}}}, timing(math.nan),
     timing(-1.0), timing(scale="elsewhere"), [1, 2]],
)  # fmt: skip
def test_what_was_not_measured_is_not_won(tmp_path, timed):
    (result,) = gates(tmp_path, timed)
    speed = result.criteria[1]
    assert (speed.passed, speed.value) == (None, None)
    assert "not measured" in speed.detail
    assert "speed" in result.reason
    assert not result.promote


def test_without_step_tables_stability_is_not_measured(tmp_path):
    found = criterion(tmp_path, "stability", recipe=dataclasses.replace(ONE, with_steps=False))
    assert (found.passed, found.value) == (None, None)


def test_spikes_and_divergences_are_counted_a_run(tmp_path):
    def edit(draft):
        if draft.variant == "hybrid" and draft.seed < 2:
            for row in draft.steps[40:44]:
                row["loss"] += 2.0
        if draft.variant == "mha" and draft.seed == 2:
            draft.status["state"] = "diverged"

    found = criterion(tmp_path, "stability", edit=edit)
    assert found.detail == "2 of 3 runs diverged or spiked, against 1 of 3 of mha"
    assert (found.passed, found.value) == (False, pytest.approx(-1 / 3))


def test_a_worse_candidate_has_not_won_quality(tmp_path):
    recipe = dataclasses.replace(ONE, variants={"mha": 1.0, "hybrid": 0.8, "short": 0.7})
    found = criterion(tmp_path, "quality", recipe=recipe)
    assert found.passed is False
    assert "A_BETTER" in found.detail


def curve(steps: int = 2000, rng: int = 0) -> np.ndarray:
    noise = 0.03 * np.random.default_rng(rng).normal(size=steps)
    return np.array([surface(1e8, (i + 50) * 1e6) for i in range(steps)]) + noise


def test_an_ordinary_curve_has_no_spike():
    assert [find_spikes(curve(5000, rng)) for rng in range(40)] == [[]] * 40
    assert find_spikes([]) == find_spikes([3.0] * 200) == find_spikes([3.0]) == []


@pytest.mark.parametrize("at", [40, 300, 1990])
def test_a_spike_is_found_where_it_begins(at):
    losses = curve()
    losses[at : at + 12] += 0.6 * 0.8 ** np.arange(min(12, losses.size - at))
    assert find_spikes(losses) == [at]


def test_two_spikes_are_two_and_one_that_returns_late_is_one():
    losses = curve()
    losses[500 : 500 + 2 * LEVEL_STEPS] += 1.0
    losses[900:905] += 1.0
    assert find_spikes(losses) == [500, 900]


def test_a_hard_batch_is_no_spike_and_nan_is_one():
    losses = curve()
    losses[700] += 3.0
    assert find_spikes(losses) == []
    losses[900] = math.nan
    losses[1500] = math.inf
    assert find_spikes(losses) == [900, 1500]
