"""Predicted seconds of a run: arithmetic by hand, what earlier runs teach, and what stands in the ledger."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run_schedule import EvaluationSetConfig
from harness.launcher.cost import measurements, step_cost
from harness.launcher.cost import reference_machine as reference
from harness.launcher.cost.machine_speed import MachineSpeed
from harness.launcher.cost.step_cost import (
    LaunchConditions,
    Observation,
    disk_bytes,
    estimate_run,
    possible_meshes,
    workload_of,
)
from harness.launcher.placement.frozen import freeze_places
from harness.launcher.runs import Run, make_blocks, run_dir, sweep_dir
from harness.records.paths import SweepDir
from harness.records.run import metrics
from harness.records.run.status import State, Status, write_status
from harness.records.run.timeline import TRAIN, phase_spans, read_timeline
from harness.records.sweep import ledger
from tests.launcher.support import config, configs, facts

STEPS, STEP_SECONDS = 200, 0.02


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))


def run_of(tmp_path: Path, steps: int = STEPS, flops: float = 6600.0, **changes) -> Run:
    made = config(tmp_path, **changes)
    made.scale.tokens = steps * facts(made).tokens_per_step
    described = dataclasses.replace(facts(made), steps=steps, executed_flops_per_token=flops)
    return Run(made, described, run_dir(sweep_dir([made]), made))


def finish(
    run: Run,
    step: float = STEP_SECONDS,
    compile: float = 4.0,
    attempt: int = 1,
    first: float = 3.0,
    start: float = 0.0,
):
    """A run that took so many seconds a step (the first one more), to start, to compile, and 1 a further
    phase."""
    times = [first + step * i for i in range(run.facts.steps)]
    rows = [
        dict.fromkeys(metrics.STEPS, 0) | {"step": i + 1, "device_seconds": seconds * run.devices}
        for i, seconds in enumerate(times)
    ]
    metrics.write_part(run.dir, "steps", 0, run.facts.steps, rows)
    moment, lines = 1e9, []
    phases = [("compile", compile), ("train", times[-1]), ("evaluate", 1.0), ("save", 1.0), ("end", 0.0)]
    for phase, seconds in [("start", start), *phases]:
        lines.append({"time": moment, "phase": phase, "attempt": attempt, "width": run.devices})
        moment += seconds
    run.dir.timeline.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_status(run.dir, Status(State.finished, run.facts.steps, run.facts.steps, attempt=attempt))
    return compile + times[-1] + 2.0


def observed(rate: float = 1e9, **changes) -> Observation:
    return Observation(**{"step_flops": 6600.0 * 1280, "width": 1, "crowd": 1.0, "rate": rate} | changes)


class TestDemand:
    def test_flops_steps_and_saves_by_hand(self, tmp_path):
        run = run_of(tmp_path)
        demand = workload_of(run.config, run.facts)
        assert demand.step_flops == 6600.0 * 1280
        assert (demand.steps, demand.saves) == (200, 2)
        assert demand.evaluation_flops == pytest.approx(8 * 16384 * 6600 / 3)

    def test_an_evaluation_costs_a_pass_over_each_set_too(self, tmp_path):
        run = run_of(tmp_path)
        run.config.evaluation.sets = {name: EvaluationSetConfig("texts") for name in "cd"}
        demand = workload_of(run.config, run.facts)
        assert demand.evaluation_flops == pytest.approx(3 * 8 * 16384 * 6600 / 3)

    def test_a_branch_costs_its_cooldown(self, tmp_path):
        run = run_of(tmp_path)
        run.config.schedule.branches, run.config.schedule.cooldown = [0.5], 0.2
        assert workload_of(run.config, run.facts).steps == 200 + 20

    def test_disk_holds_the_checkpoints_that_are_kept(self, tmp_path):
        run = run_of(tmp_path)
        described = dataclasses.replace(run.facts, state_bytes=16_000, parameters=1000)
        run = dataclasses.replace(run, facts=described)
        assert disk_bytes(run) == 2 * 12_000 + step_cost.ROW_BYTES * STEPS
        run.config.checkpoint.keep_every = 50
        assert disk_bytes(run) == (2 + 4) * 12_000 + step_cost.ROW_BYTES * STEPS

    def test_a_lane_may_be_as_wide_as_its_rows_divide(self, tmp_path):
        made = config(tmp_path)
        made.scale.batch, made.mesh = 12, MeshConfig(data=1, fsdp=2, tensor=3)
        assert [*possible_meshes(made)] == [6, 12, 18, 36]
        made.compute.microbatches = 2
        assert possible_meshes(made) == {6: MeshConfig(1, 2, 3), 18: MeshConfig(3, 2, 3)}

    def test_the_devices_of_a_host_share_the_state_of_a_large_model(self, tmp_path):
        made = config(tmp_path)
        made.scale.batch, made.scale.parameters = 16, 124_000_000
        assert possible_meshes(made) == {
            1: MeshConfig(), 2: MeshConfig(fsdp=2), 4: MeshConfig(fsdp=4), 8: MeshConfig(fsdp=8),
            16: MeshConfig(data=2, fsdp=8),
        }  # fmt: skip
        made.mesh = MeshConfig(fsdp=2)
        assert possible_meshes(made)[8] == MeshConfig(data=4, fsdp=2), "the config has the last word"


class TestEstimate:
    def test_nothing_measured_is_a_stated_default_and_a_wide_interval(self, tmp_path):
        run = run_of(tmp_path)
        found = estimate_run(run, 1, 1.0, [])
        rate = reference.PRODUCT_RATE * 8 / (8 + reference.HALF_WIDTH)
        assert found.train == pytest.approx(200 * 6600 * 1280 / rate)
        assert (found.runs, found.low, found.high) == (0, found.seconds / 4, found.seconds * 4)

    def test_a_calibration_scales_steps_and_starts_and_halves_the_doubt(self, tmp_path):
        run = run_of(tmp_path)
        default = estimate_run(run, 1, 1.0, [])
        twice = LaunchConditions(MachineSpeed(2.0, 4.0))
        calibrated = estimate_run(run, 1, 1.0, [], twice)
        assert calibrated.train == pytest.approx(default.train / 2)
        assert calibrated.startup == pytest.approx(default.startup / 4)
        assert calibrated.high / calibrated.seconds == pytest.approx(step_cost.CALIBRATED_UNCERTAINTY)
        assert (default.evidence, calibrated.evidence) == (step_cost.ASSUMED, step_cost.CALIBRATED)
        assert estimate_run(run, 1, 1.0, [observed()], twice).train == pytest.approx(200 * 6600 * 1280 / 1e9)

    def test_twice_the_tokens_take_twice_as_long(self, tmp_path):
        one, two = (estimate_run(run_of(tmp_path, steps), 1, 1.0, [observed()]).train for steps in (200, 400))
        assert two == pytest.approx(2 * one)
        assert one == pytest.approx(200 * 6600 * 1280 / 1e9)

    def test_a_core_that_two_devices_share_trains_each_at_half_the_pace(self, tmp_path):
        alone, shared = (estimate_run(run_of(tmp_path), 1, crowd, [observed()]).train for crowd in (1.0, 2.0))
        assert shared == pytest.approx(2 * alone)

    def test_a_wider_lane_is_faster_by_less_than_its_width(self, tmp_path):
        one, four = (estimate_run(run_of(tmp_path), width, 1.0, [observed()]).train for width in (1, 4))
        assert one / four == pytest.approx(4 * step_cost.RATE_PER_DOUBLING**2)

    def test_runs_of_about_the_size_count_and_others_do_not(self, tmp_path):
        known = [observed(1e9), observed(5e9, step_flops=6600.0 * 1280 * 30)]
        assert estimate_run(run_of(tmp_path), 1, 1.0, known).train == pytest.approx(200 * 6600 * 1280 / 1e9)
        large = estimate_run(run_of(tmp_path, flops=6600.0 * 30), 1, 1.0, known)
        assert large.train == pytest.approx(30 * 200 * 6600 * 1280 / 5e9)

    def test_a_wider_model_computes_at_a_higher_rate(self, tmp_path):
        run = run_of(tmp_path)
        wide = dataclasses.replace(run, facts=dataclasses.replace(run.facts, shape={"width": 240}))
        known = [observed(1e9, model_width=80)]
        narrow_rate, wide_rate = (estimate_run(each, 1, 1.0, known).train for each in (run, wide))
        assert wide_rate == pytest.approx(200 * 6600 * 1280 / 1.5e9)
        assert narrow_rate > wide_rate

    def test_the_interval_widens_with_scatter_and_with_distance(self, tmp_path):
        def width(known, flops=6600.0):
            found = estimate_run(run_of(tmp_path, flops=flops), 1, 1.0, known)
            assert found.low < found.seconds < found.high
            return found.high / found.low

        steady = [observed(1e9)] * 5
        assert width([observed(r * 1e9) for r in (0.5, 0.8, 1.0, 1.2, 2.0)]) > width(steady)
        assert width([]) > width(steady, 66000.0) > width(steady)

    def test_what_was_compiled_before_starts_soon(self, tmp_path):
        run = run_of(tmp_path)
        layers, load = 2, reference.startup_seconds(2, compiles=False)
        cold = observed(startup=20.0, program="another", layers=layers)
        assert estimate_run(run, 1, 1.0, [cold]).startup == 20.0
        same = observed(startup=20.0, program=step_cost.program_hash(run.config), layers=layers)
        assert estimate_run(run, 1, 1.0, [same]).startup == load
        warm = observed(startup=1.25, program="another", warm=True, layers=layers)
        assert estimate_run(run, 1, 1.0, [same, warm]).startup == 1.25

    def test_a_program_of_more_layers_takes_longer_to_compile(self, tmp_path):
        run = run_of(tmp_path)
        deep = dataclasses.replace(run, facts=dataclasses.replace(run.facts, shape={"layers": 8}))
        scanned = dataclasses.replace(deep, facts=dataclasses.replace(deep.facts, scanned=True))
        starts = [estimate_run(each, 1, 1.0, []).startup for each in (scanned, run, deep)]
        assert starts == sorted(starts)
        assert starts[2] - starts[0] == pytest.approx(7 * reference.LAYER_SECONDS)
        measured = observed(startup=2 * starts[1], program="another", layers=2)
        assert estimate_run(deep, 1, 1.0, [measured]).startup == pytest.approx(2 * starts[2])

    def test_only_the_first_run_of_a_program_compiles_it(self, tmp_path):
        runs = [run_of(tmp_path, seed=seed) for seed in (0, 1)]
        first = LaunchConditions(compiling=frozenset([runs[0].name]))
        one, two = (estimate_run(run, 1, 1.0, [], first).startup for run in runs)
        assert two == reference.PROCESS_SECONDS < one


class TestLearning:
    def test_the_measured_rate_is_that_of_warm_steps(self, tmp_path):
        run = run_of(tmp_path, steps=25)
        finish(run, first=30.0)
        cold = metrics.read_curve(run.dir, "steps").to_dicts()
        for row in cold:
            row["device_seconds"] += min(row["step"], 6)  # a second more, for each of the first steps
        metrics.truncate_after(run.dir, 0)
        metrics.write_part(run.dir, "steps", 0, 25, cold)
        taken = measurements.run_timing(run)
        assert taken is not None
        assert taken.step_seconds == pytest.approx(STEP_SECONDS)
        assert measurements.to_observation(run, taken, 2.0, False).rate == pytest.approx(
            6600 * 1280 / STEP_SECONDS * 2
        )

    def test_one_pause_of_the_host_is_no_rate(self, tmp_path):
        run = run_of(tmp_path)
        finish(run)
        rows = metrics.read_curve(run.dir, "steps").to_dicts()
        late = [row | {"device_seconds": row["device_seconds"] + 1000 * (row["step"] > 100)} for row in rows]
        metrics.truncate_after(run.dir, 0)
        metrics.write_part(run.dir, "steps", 0, STEPS, late)
        taken = measurements.run_timing(run)
        assert taken is not None
        assert taken.step_seconds == pytest.approx(STEP_SECONDS)

    def test_a_prediction_that_rests_on_an_equal_run_is_right(self, tmp_path):
        run = run_of(tmp_path)
        took = finish(run, first=STEP_SECONDS)
        assert measurements.record_timings(sweep_dir([run.config]), [run], 1.0) == []
        again = estimate_run(run_of(tmp_path, seed=1), 1, 1.0, measurements.load_observations("cpu"))
        assert again.runs == 1
        assert again.seconds - again.startup == pytest.approx(took - 4.0, rel=0.01)

    @pytest.mark.parametrize("attempt", [2, 3])
    def test_a_run_of_several_attempts_teaches_nothing(self, tmp_path, attempt):
        run = run_of(tmp_path)
        finish(run, attempt=attempt)
        assert measurements.run_timing(run) is None

    def test_a_run_without_an_end_or_a_timeline_teaches_nothing(self, tmp_path):
        run = run_of(tmp_path)
        finish(run)
        run.dir.timeline.unlink()
        assert measurements.run_timing(run) is None
        finish(run)
        write_status(run.dir, Status(State.running, STEPS, STEPS, attempt=1))
        assert measurements.run_timing(run) is None

    def test_the_second_sweep_of_a_program_knows_that_it_is_warm(self, tmp_path):
        for seed in (0, 1):
            run = run_of(tmp_path, seed=seed)
            finish(run)
            measurements.record_timings(sweep_dir([run.config]), [run], 1.0)
        assert [each.warm for each in measurements.load_observations("cpu")] == [False, True]

    def test_the_wait_for_tokens_belongs_to_no_run(self, tmp_path):
        """The first sweep makes them; a start of as many seconds in a later one is a slow start."""
        startups = []
        for seed in (0, 1):
            run = run_of(tmp_path, seed=seed)
            finish(run, start=31.0)
            measurements.record_timings(sweep_dir([run.config]), [run], 1.0)
            startups.append(measurements.load_observations("cpu")[-1].startup)
        assert startups == [reference.PROCESS_SECONDS + 4.0, 31.0 + 4.0]

    def test_a_run_that_waited_for_the_programs_of_another_tells_nothing_of_compiling(self, tmp_path):
        runs = [run_of(tmp_path, seed=seed) for seed in (0, 1)]
        finish(runs[0], compile=4.0)
        finish(runs[1], compile=5.0)
        measurements.record_timings(sweep_dir([runs[0].config]), runs, 1.0)
        startups = [each.startup for each in measurements.load_observations("cpu")]
        assert startups == [4.0, None]

    def test_another_machine_has_its_own_rates(self, tmp_path, monkeypatch):
        run = run_of(tmp_path)
        finish(run)
        measurements.record_timings(sweep_dir([run.config]), [run], 1.0)
        assert len(measurements.load_observations("cpu")) == 1
        assert measurements.load_observations("tpu") == []
        monkeypatch.setattr(step_cost, "_cpu_model", lambda: "another")
        assert measurements.load_observations("cpu") == []

    @pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}', b"\xff"])
    def test_a_damaged_cache_is_an_empty_one(self, content, capsys):
        path = measurements._OBSERVATIONS.path
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        assert measurements.load_observations("cpu") == []
        assert "is damaged" in capsys.readouterr().err

    def test_the_cache_keeps_the_newest(self, tmp_path, monkeypatch):
        monkeypatch.setattr(measurements, "MAX_OBSERVATIONS", 2)
        for seed in range(3):
            run = run_of(tmp_path, seed=seed)
            finish(run, step=0.01 * (seed + 1))
            measurements.record_timings(sweep_dir([run.config]), [run], 1.0)
        rates = [each.rate for each in measurements.load_observations("cpu")]
        assert rates == pytest.approx([6600 * 1280 / 0.02, 6600 * 1280 / 0.03])


def test_the_error_is_that_of_what_was_predicted_before(tmp_path):
    """Predictions are frozen with the placement; what is learned later does not make them better."""
    made = configs(tmp_path, seeds=(0,))
    sweep = sweep_dir(made)
    runs = [Run(each, dataclasses.replace(facts(each), steps=STEPS), run_dir(sweep, each)) for each in made]
    predicted = {run.name: estimate_run(run, 1, 1.0, []) for run in runs}
    freeze_places(sweep, make_blocks(runs), (), predicted)
    freeze_places(sweep, make_blocks(runs), (), {})
    took = [finish(run, step=seconds) for run, seconds in zip(runs, (0.02, 0.04), strict=True)]
    (said,) = measurements.record_timings(sweep, runs, 1.0)
    entry = ledger.read(sweep, "prediction")[-1]["content"]
    errors = [abs(predicted[run.name].seconds / t - 1) for run, t in zip(runs, took, strict=True)]
    assert entry["median"] == pytest.approx(sum(errors) / 2, rel=1e-3)
    assert entry["worst"] == pytest.approx(max(errors), rel=1e-3)
    assert {name: each["measured"] for name, each in entry["runs"].items()} == pytest.approx(
        {run.name: t for run, t in zip(runs, took, strict=True)}
    )
    assert f"{max(errors):.0%} at worst" in said
    assert ledger.edited_positions(sweep) == []


def test_what_a_sweep_put_to_use_is_of_the_devices_that_it_had(tmp_path):
    run = run_of(tmp_path)
    took = finish(run)
    trained = next(span for span in phase_spans(read_timeline(run.dir)) if span.phase == TRAIN).seconds
    said, idle = measurements.utilisation_lines(SweepDir(tmp_path), [run], 4)
    assert f"{100 * trained / (4 * took):.1f} % of 4 devices" in said
    assert "no lane 75.0 %" in idle
    assert measurements.utilisation_lines(SweepDir(tmp_path), [run], 0)[0].startswith(
        f"Utilisation {100 * trained / took:.1f} % of 1 device "
    )
