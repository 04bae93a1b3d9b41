"""Earlier predictions correct later ones: coverage by simulation, and what the record of a run is made of."""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Any

import numpy as np
import pytest
from scipy.special import bdtr
from scipy.stats import beta

from harness.launcher.cost import measurements, prediction_log
from harness.launcher.cost.measurements import RunTiming, record_timings
from harness.launcher.cost.prediction_log import (
    MAX_LAUNCHES,
    MIN_LAUNCHES,
    Correction,
    Prediction,
    accuracy_by_evidence,
    apply_correction,
    fit_correction,
    fit_corrections,
)
from harness.launcher.cost.step_cost import (
    ASSUMED,
    CALIBRATED,
    MEASURED,
    RunEstimate,
    estimate_run,
    machine_kind,
    program_hash,
)
from harness.launcher.placement.frozen import freeze_places
from harness.launcher.runs import Run, make_blocks, run_dir, sweep_dir
from harness.launcher.workers.supervisor import Interrupted, Supervisor
from harness.plan.predict import EvidenceKind
from harness.records.sweep import ledger
from tests.launcher.support import configs, facts, train
from tests.launcher.test_prediction_log import made as prediction
from tests.launcher.test_step_cost import STEP_SECONDS, STEPS, finish, observed


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))


def seen(ratios, runs: int = 1, **changes) -> list[Prediction]:
    """Runs that took so many times as long as they were predicted; so many of each launch."""
    return [
        prediction(launch=str(index // runs), raw=2.0, measured=2.0 * float(ratio), **changes)
        for index, ratio in enumerate(ratios)
    ]


def of(seconds: float, doubt: float = 1.01, **changes) -> RunEstimate:
    """A run that does nothing but one step."""
    made = RunEstimate(seconds, 0.0, 0.0, 0.0, seconds / doubt, seconds * doubt, runs=1, steps=1)
    return dataclasses.replace(made, **changes)


def corrected(predictions: list[Prediction]) -> Correction:
    correction = fit_correction(predictions)
    assert correction
    return correction


def about(value: float) -> Any:
    return pytest.approx(value)


class TestFit:
    @pytest.mark.parametrize(
        ("launches", "runs", "shared", "own"),
        [(MIN_LAUNCHES, 1, 0.0, 0.3), (MIN_LAUNCHES, 3, 0.25, 0.1)],
    )
    def test_nine_runs_of_ten_are_inside_and_the_bias_is_gone(self, launches, runs, shared, own):
        """Steps take `bias` times as long as predicted, with scatter that a launch shares and scatter of
        each run; the run that is judged is of a launch of its own."""
        bias, trials, random = 1.4, 250, np.random.default_rng(launches * runs)
        hits, factors = 0, []
        for _ in range(trials):
            logs = shared * random.normal(size=(launches + 1, 1)) + own * random.normal(
                size=(launches + 1, runs)
            )
            *past, present = bias * np.exp(logs)
            found = apply_correction(of(2.0), {MEASURED: corrected(seen(np.ravel(past), runs))})
            hits += found.low <= 2.0 * present[0] <= found.high
            factors.append(math.log(found.factor))
        assert bdtr(hits, trials, 0.9) > 0.001, f"{hits} of {trials}"
        assert hits < 0.98 * trials, "as wide as this says nothing"
        error = statistics.stdev(factors) / math.sqrt(trials)
        assert statistics.mean(factors) == pytest.approx(math.log(bias), abs=4 * error)

    def test_runs_of_one_launch_taken_as_many_would_not_cover(self):
        """What counting a launch as one is for: the same simulation, each run as if it were a launch."""
        random, trials, hits = np.random.default_rng(0), 100, 0
        for _ in range(trials):
            *past, present = np.exp(0.3 * random.normal(size=(4, 1)) + 0.02 * random.normal(size=(4, 5)))
            found = apply_correction(of(2.0), {MEASURED: corrected(seen(np.ravel(past)))})
            hits += found.low <= 2.0 * present[0] <= found.high
        assert bdtr(hits, trials, 0.9) < 0.001

    @pytest.mark.parametrize("launches", [9, 10, 18, 19, 29])
    def test_with_one_run_a_launch_it_is_the_kth_smallest(self, launches):
        logs = np.random.default_rng(launches).normal(size=launches).tolist()
        away = sorted(
            abs(log - statistics.median(logs[:index] + logs[index + 1 :])) for index, log in enumerate(logs)
        )
        found = fit_correction(seen(np.exp(logs)))
        assert found is not None
        assert found.factor == pytest.approx(math.exp(statistics.median(logs)))
        assert found.spread == pytest.approx(away[math.ceil((launches + 1) * 0.9) - 1])

    def test_too_few_launches_correct_nothing_however_many_runs(self):
        assert fit_correction(seen([1.5] * (MIN_LAUNCHES - 1))) is None
        assert fit_correction(seen([1.5] * 80, runs=10)) is None
        assert fit_correction(seen([1.5] * MIN_LAUNCHES)) == Correction(about(1.5), about(0.0), MIN_LAUNCHES)

    def test_the_newest_launches_count(self):
        found = fit_correction(seen([9.0] * 50 + [1.5] * MAX_LAUNCHES))
        assert found == Correction(about(1.5), about(0.0), MAX_LAUNCHES)

    def test_what_was_said_with_a_correction_changes_no_later_one(self):
        plain = seen(np.linspace(0.8, 2.0, 12))
        said = [dataclasses.replace(each, predicted=9.0, low=8.0, high=10.0) for each in plain]
        assert fit_correction(said) == fit_correction(plain)


class TestCorrected:
    def test_steps_are_longer_and_nothing_else_is(self):
        plain = of(10.0, evaluation=2.0, save=1.0, startup=3.0, low=8.0, high=32.0)
        found = apply_correction(plain, {MEASURED: Correction(1.5, math.log(1.3), 9)})
        assert (found.train, found.seconds, found.factor) == (15.0, 21.0, 1.5)
        assert (found.evaluation, found.save, found.startup) == (2.0, 1.0, 3.0)

    @pytest.mark.parametrize("spread", [0.0, 0.1, 1.0])
    def test_an_interval_is_never_narrower_than_its_own(self, spread):
        plain = of(10.0, low=8.0, high=13.0)
        found = apply_correction(plain, {MEASURED: Correction(1.5, spread, 9)})
        assert found.seconds / found.low == pytest.approx(max(10 / 8, math.exp(spread)))
        assert found.high / found.seconds == pytest.approx(max(13 / 10, math.exp(spread)))

    def test_what_rests_on_something_else_is_left_alone(self):
        correction = {MEASURED: Correction(1.5, 0.1, 9)}
        assert apply_correction(of(10.0, runs=0), correction) == of(10.0, runs=0)
        assert apply_correction(of(10.0), {}) == of(10.0)

    def test_each_machine_and_each_evidence_has_its_own(self):
        kept = [
            *seen([1.5] * 9, machine="a"), *seen([3.0] * 9, machine="b"),
            *seen([5.0] * 9, machine="a", evidence=ASSUMED), *seen([7.0] * 3, machine="c"),
        ]  # fmt: skip
        found = fit_corrections(kept, "a")
        assert {key: each.factor for key, each in found.items()} == pytest.approx(
            {MEASURED: 1.5, ASSUMED: 5.0}
        )
        assert fit_corrections(kept, "c") == fit_corrections(kept, "unknown") == {}

    def test_a_plan_has_a_label_for_what_predictions_rest_on(self):
        assert {MEASURED, ASSUMED} <= {each.value for each in EvidenceKind}


def test_accuracy_by_hand():
    """Two launches: one run that took twice as long, and three of which one was right."""
    runs = [
        prediction(launch=launch, raw=1.0, predicted=2.0, low=1.0, high=3.0, measured=took)
        for launch, took in (("a", 4.0), ("b", 2.0), ("b", 8.0), ("b", 8.0))
    ]
    (found,) = accuracy_by_evidence(runs)
    assert (found.runs, found.launches) == (4, 2)
    assert (found.median, found.worst) == (0.5, 0.75)
    assert found.inside == pytest.approx((0 + 1 / 3) / 2)
    hits = 2 * found.inside
    exact = beta.ppf(0.025, hits, 2 - hits + 1), beta.ppf(0.975, hits + 1, 2 - hits)
    assert (found.inside_low, found.inside_high) == pytest.approx(exact)
    assert found.factor == pytest.approx(4.0)
    assert found.now is None


def placed(tmp_path, known=(), **changes) -> tuple[list[Run], dict[str, RunEstimate]]:
    made = configs(tmp_path, seeds=(0,), **changes)
    runs = [
        Run(each, dataclasses.replace(facts(each), steps=STEPS), run_dir(sweep_dir(made), each))
        for each in made
    ]
    predicted = {run.name: estimate_run(run, 1, 1.0, known) for run in runs}
    freeze_places(sweep_dir(made), make_blocks(runs), (), predicted)
    return runs, predicted


class TestRecord:
    def test_it_is_what_was_predicted_before_the_run(self, tmp_path):
        """What is learned between placement and end makes the record no better."""
        runs, predicted = placed(tmp_path)
        sweep = sweep_dir([runs[0].config])
        for run in runs:
            finish(run)
        record_timings(sweep, runs[:1], 1.0)
        assert measurements.load_observations("cpu"), "the second run could be predicted much better by now"
        record_timings(sweep, runs[1:], 1.0)
        kept = prediction_log.read_predictions().predictions
        assert [each.run for each in kept] == [run.name for run in runs]
        for run, each in zip(runs, kept, strict=True):
            first = predicted[run.name]
            step = first.train / STEPS
            assert (each.predicted, each.raw) == (pytest.approx(step, rel=1e-3),) * 2
            assert (each.low, each.high) == pytest.approx((step / 4, step * 4), rel=1e-3)
            assert each.measured == pytest.approx(STEP_SECONDS)
            assert each.evidence == ASSUMED
            assert (each.machine, each.devices) == (machine_kind("cpu"), 1)
            assert (each.experiment, each.program) == ("trial", program_hash(run.config))
        assert len({each.launch for each in kept}) == 1, "they were placed together"

    def test_the_raw_prediction_stands_beside_the_corrected_one(self, tmp_path):
        made = configs(tmp_path, seeds=(0,))
        run = Run(
            made[0],
            dataclasses.replace(facts(made[0]), steps=STEPS),
            run_dir(sweep_dir(made), made[0]),
        )
        raw = estimate_run(run, 1, 1.0, [observed()])
        said = apply_correction(raw, {MEASURED: Correction(1.5, 0.5, 9)})
        freeze_places(sweep_dir(made), make_blocks([run]), (), {run.name: said})
        finish(run)
        record_timings(sweep_dir(made), [run], 1.0)
        (kept,) = prediction_log.read_predictions().predictions
        assert kept.raw == pytest.approx(raw.train / STEPS, rel=1e-3)
        assert kept.predicted == pytest.approx(1.5 * kept.raw, rel=1e-3)
        assert kept.low < kept.predicted / 1.3 < kept.predicted < kept.high
        assert kept.evidence == MEASURED

    def test_a_run_of_two_attempts_and_one_that_an_earlier_version_placed_leave_none(self, tmp_path):
        runs, _ = placed(tmp_path)
        sweep = sweep_dir([runs[0].config])
        finish(runs[0], attempt=2)
        finish(runs[1])
        entry = ledger.read(sweep, "placement")[0]["content"]["runs"]
        sweep.ledger.unlink()
        ledger.append(sweep, "placement", {"runs": {n: p | {"step": None} for n, p in entry.items()}})
        record_timings(sweep, runs, 1.0)
        assert prediction_log.read_predictions().predictions == ()

    def test_a_cache_that_cannot_be_written_is_a_note(self, tmp_path, monkeypatch):
        runs, _ = placed(tmp_path)
        for run in runs:
            finish(run)
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "file"))
        judged, note = record_timings(sweep_dir([runs[0].config]), runs, 1.0)
        assert "off by" in judged
        assert note.startswith(str(tmp_path / "file"))
        assert note.endswith("Later predictions will not use the times of these runs.")


def test_what_had_finished_when_the_user_left_is_kept(tmp_path, monkeypatch):
    def leave(*_) -> None:
        raise Interrupted

    done = RunTiming(0.02, {"train": 1.0})
    monkeypatch.setattr(measurements, "run_timing", lambda run: done if run.variant == "mha" else None)
    monkeypatch.setattr(Supervisor, "run", leave)
    with pytest.raises(Interrupted):
        train(configs(tmp_path, seeds=(0,)))
    assert [each.run for each in prediction_log.read_predictions().predictions] == ["xs/mha/seed0"]


def test_a_sweep_uses_what_is_known_and_leaves_one_record_a_run_however_often_it_is_repeated(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(measurements, "run_timing", lambda run: RunTiming(0.02, {"train": 1.0}))
    prediction_log.append_predictions(
        seen([1.5] * MIN_LAUNCHES, machine=machine_kind("cpu"), evidence=CALIBRATED)
    )
    made = configs(tmp_path, seeds=(0,))
    for _ in range(2):
        train(made)
        kept = prediction_log.read_predictions().predictions[MIN_LAUNCHES:]
        assert sorted(each.run for each in kept) == ["xs/mha/seed0", "xs/short/seed0"]
        assert [each.predicted / each.raw for each in kept] == pytest.approx([1.5, 1.5], rel=1e-3)
