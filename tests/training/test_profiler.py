"""A trace of some steps is written once, can be read, and changes no bit of what is trained."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from harness.config.compose import compose
from harness.config.run_identity import identity
from harness.config.schema.run import Profile, ProfileConfig
from harness.core.errors import UserError
from harness.records.paths import RunDir
from harness.records.run.status import State
from harness.records.run.timeline import read_timeline
from harness.training.output import profiler
from harness.training.output.profiler import StepProfiler, check_profile
from harness.training.output.run_writer import RunWriter
from tests.training.runs import curve, prepare, train

STEPS = ("profile=steps", "profile.first=3", "profile.last=5")


def traces(run):
    return [*run.profile.rglob("*.trace.json.gz")]


def test_the_steps_are_traced_once_and_every_bit_is_the_same(tmp_path):
    for name in ("plain", "traced"):
        (tmp_path / name).mkdir()
    plain, run = prepare(tmp_path / "plain"), prepare(tmp_path / "traced", *STEPS)
    assert train(plain) is train(run) is State.finished
    assert curve(run).equals(curve(plain))
    (file,) = traces(run)
    assert str(file) in run.log.read_text()
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    steps = [event["args"]["step_num"] for event in events if event.get("name") == "train"]
    assert sorted(map(int, steps)) == [3, 4, 5]
    assert [entry.phase for entry in read_timeline(run)].count("trace") == 2
    assert train(run) is State.finished
    assert traces(run) == [file]
    assert not traces(plain)


def test_it_is_no_part_of_what_a_run_is():
    assert identity(compose([])) == identity(compose([*STEPS]))


def attempt(folder, steps, first=3, last=5):
    """A run of so many steps of nothing."""
    run = RunDir(folder)
    journal = RunWriter(run, steps, 0, 1)
    tracer = StepProfiler(ProfileConfig(Profile.steps, first, last), journal, 0)
    for step in range(steps):
        if tracer.is_due(step):
            tracer.toggle()
        jax.block_until_ready(jnp.ones(3) + step)
        journal.update_status(step=step + 1)
    tracer.close()
    assert not profiler._PROFILER_LOCK.locked()
    return run


def test_an_attempt_that_ends_meanwhile_keeps_what_was_traced(tmp_path):
    run = attempt(tmp_path, 4)
    assert len(traces(run)) == 1
    assert "trace up to step 4 in" in run.log.read_text()


def test_one_that_ends_before_says_so(tmp_path):
    run = attempt(tmp_path, 2)
    assert not traces(run)
    assert "no trace: the attempt ended before" in run.log.read_text()


def test_one_lane_at_a_time(tmp_path):
    one, other = (RunWriter(RunDir(tmp_path / name), 9, 0, 1) for name in "ab")
    tracers = []
    for journal in (one, other):
        journal.run.path.mkdir()
        tracers.append(StepProfiler(ProfileConfig(Profile.steps, 1, 1), journal, 0))
        tracers[-1].toggle()
    assert "another run of this process is being traced" in other.run.log.read_text()
    for tracer in tracers:
        tracer.close()
    assert (len(traces(one.run)), len(traces(other.run))) == (1, 0)


def test_a_profiler_that_fails_ends_no_run(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no profiler here")

    monkeypatch.setattr("jax.profiler.start_trace", fail)
    assert "no trace: no profiler here" in attempt(tmp_path, 9).log.read_text()


def test_a_last_step_before_the_first_is_refused():
    with pytest.raises(UserError, match=r"profile\.first=6, profile\.last=5"):
        check_profile(ProfileConfig(first=6, last=5))
