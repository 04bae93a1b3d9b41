"""The timing pass from the driver's side: when it runs, what it times, and that a failure is only said."""

from __future__ import annotations

import json
import subprocess

import pytest

from harness.config.schema.decision import Axis, Gate, GateConfig
from harness.core.errors import UserError
from harness.launcher.runs import Run, make_blocks, run_dir, sweep_dir
from harness.launcher.stages.time_steps import check_step_times, time_variants
from harness.records.run.status import State, Status, write_status
from harness.records.sweep import ledger
from harness.records.sweep.timing import read_timing
from tests.launcher.support import configs, facts

MEASURED = {
    "scale": "s", "control": "mha", "steps": 20, "seconds": 12.3, "others_share": 0.01,
    "visits": {"short": [[0.0, 0.1, 0.1, 0.0]] * 4}, "variants": {"mha": {"step_seconds": 0.1}},
}  # fmt: skip


@pytest.fixture
def passes(monkeypatch):
    """Commands that were started; `answer`: what the next one says."""
    started, answer = [], {"code": 0, "out": json.dumps(MEASURED), "err": ""}

    def run(command, **_):
        started.append(command)
        return subprocess.CompletedProcess(command, answer["code"], answer["out"], answer["err"])

    monkeypatch.setattr("harness.launcher.stages.time_steps.subprocess.run", run)
    return started, answer


def finished(folder, gate=Gate.promote):
    """A sweep of two scales, all of it trained."""
    made = configs(folder, scales=("xs", "s"))
    for config in made:
        config.gate = GateConfig(gate)
        config.scale.tokens *= 2 if config.scale.name == "s" else 1
    sweep = sweep_dir(made)
    runs = [Run(each, facts(each), run_dir(sweep, each)) for each in made]
    for run in runs:
        run.dir.path.mkdir(parents=True)
        write_status(run.dir, Status(State.finished))
    return sweep, make_blocks(runs)


def test_it_times_one_block_once_and_keeps_what_it_found(tmp_path, passes):
    sweep, blocks = finished(tmp_path)
    for _ in range(2):
        time_variants(sweep, blocks, lambda _: None)
    (command,) = passes[0]
    assert command[3] == "harness.inspection.step_benchmark"
    assert [path.split("/")[-2] for path in command[4:]] == ["mha", "short"], "the control first"
    assert len({path.split("/")[-3:][0] for path in command[4:]}) == 1, "one block"
    stored = read_timing(sweep)
    assert stored is not None
    assert stored["variants"] == MEASURED["variants"]
    assert ledger.read(sweep, "timing")[0]["content"] == stored


def test_a_damaged_timing_is_timed_again(tmp_path, passes):
    sweep, blocks = finished(tmp_path)
    time_variants(sweep, blocks, lambda _: None)
    sound = sweep.timing.read_text()
    sweep.timing.write_text(sound.replace('"host": "', '"host": "x'))
    time_variants(sweep, blocks, lambda _: None)
    assert len(passes[0]) == 2
    assert read_timing(sweep) is not None


def test_without_a_gate_nothing_is_timed(tmp_path, passes):
    time_variants(*finished(tmp_path, Gate.none), lambda _: None)
    assert passes[0] == []


@pytest.mark.parametrize("key", ["axis", "match"])
def test_a_rule_in_seconds_asks_for_it_too(tmp_path, passes, key):
    sweep, blocks = finished(tmp_path, Gate.none)
    for run in (run for block in blocks for run in block.runs):
        setattr(run.config.rule, key, Axis.seconds)
    time_variants(sweep, blocks, lambda _: None)
    assert len(passes[0]) == 1


def test_it_says_the_ratio_and_how_long_it_took(tmp_path, passes):
    said = []
    time_variants(*finished(tmp_path), said.append)
    assert said == [
        "timing pass: short in turn with mha at xs/seed1, alone",
        "  short: 1.105 times the control's step time [1.105, 1.105], 4 quads of SD 0.0 %",
        "timing pass: 12 s of steps",
    ]


def test_seconds_that_nobody_would_measure_are_refused_at_launch(tmp_path):
    (made,) = configs(tmp_path, variants=("mha",), seeds=(0,))
    made.rule.axis = Axis.seconds
    check_step_times(made)
    made.engine.name = "slurm"
    with pytest.raises(UserError, match=r"rule.axis=seconds: engine=slurm trains elsewhere"):
        check_step_times(made)


def test_a_treatment_without_its_control_is_not_timed(tmp_path, passes):
    sweep, blocks = finished(tmp_path)
    for run in (run for block in blocks for run in block.runs):
        run.config.rule.control = "elsewhere"
    time_variants(sweep, blocks, lambda _: None)
    assert passes[0] == []


def test_it_waits_until_every_run_has_an_end(tmp_path, passes):
    sweep, blocks = finished(tmp_path)
    write_status(blocks[0].runs[0].dir, Status(State.preempted))
    time_variants(sweep, blocks, lambda _: None)
    assert passes[0] == []


def test_other_code_is_timed_again(tmp_path, passes, monkeypatch):
    sweep, blocks = finished(tmp_path)
    time_variants(sweep, blocks, lambda _: None)
    monkeypatch.setattr("harness.launcher.stages.time_steps.code_hash_of", lambda _: "other")
    time_variants(sweep, blocks, lambda _: None)
    assert len(passes[0]) == 2


def test_a_pass_that_fails_is_said_and_leaves_nothing(tmp_path, passes):
    sweep, blocks = finished(tmp_path)
    passes[1].update(code=2, err="xs/seed0: no such run")
    said = []
    time_variants(sweep, blocks, said.append)
    assert "no such run" in said[-1]
    assert not sweep.timing.exists()
