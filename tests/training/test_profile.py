"""A trace of some steps is written once, can be read, and changes no bit of what is trained."""

import gzip
import json

import pytest

from harness.config.compose import compose
from harness.config.errors import UserError
from harness.config.identity import identity
from harness.config.schema import ProfileConfig
from harness.records.status import State
from harness.records.timeline import read_timeline
from harness.training import profile
from harness.training.profile import check_profile
from tests.training.runs import curve, prepare, train

STEPS = ("profile=steps", "profile.first=3", "profile.last=5")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    run = prepare(tmp_path_factory.mktemp("plain"))
    assert train(run) is State.finished
    return run


def traces(run):
    return [*run.profile.rglob("*.trace.json.gz")]


def test_the_steps_are_traced_once_and_every_bit_is_the_same(plain, tmp_path):
    run = prepare(tmp_path, *STEPS)
    assert train(run) is State.finished
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


def test_one_lane_at_a_time(tmp_path, plain):
    run = prepare(tmp_path, *STEPS)
    with profile._ONE:
        assert train(run) is State.finished
    assert not traces(run)
    assert "another lane of this process is traced" in run.log.read_text()
    assert curve(run).equals(curve(plain))


@pytest.mark.parametrize(
    ("first", "said"), [(29, "steps up to 30 are traced in"), (99, "no trace: the attempt ended before")]
)
def test_an_attempt_that_ends_early_gives_the_profiler_back(tmp_path, first, said):
    run = prepare(tmp_path, "profile=steps", f"profile.first={first}", "profile.last=99")
    assert train(run) is State.finished
    assert said in run.log.read_text()
    assert len(traces(run)) == (first < 30)
    assert not profile._ONE.locked()


def test_a_profiler_that_fails_ends_no_run(tmp_path, plain, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no profiler here")

    monkeypatch.setattr("jax.profiler.start_trace", fail)
    run = prepare(tmp_path, *STEPS)
    assert train(run) is State.finished
    assert "no trace: no profiler here" in run.log.read_text()
    assert not profile._ONE.locked()


@pytest.mark.parametrize(("first", "last"), [(0, 5), (6, 5)])
def test_steps_that_are_none_are_said(first, last):
    with pytest.raises(UserError, match=f"profile.first={first}, profile.last={last}"):
        check_profile(ProfileConfig(first=first, last=last))
