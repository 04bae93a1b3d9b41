"""Steps are timed in turn, one variant at a time; what is no run of one block is refused in a sentence."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from harness.compare.inputs.step_timing import read_step_timing
from harness.core.errors import UserError
from harness.inspection import step_benchmark
from harness.records.paths import RunDir
from tests.training.runs import prepare

WIDE = ("model.width=32", "model.heads=2", "model.layers=1", "model.match=none", "data.sequence_length=64")
THIN, THICK = ("variant.name=thin", "model.ffn=64"), ("variant.name=thick", "model.ffn=4096")
OPEN = ("variant.touches=[model.ffn,scale.batch]",)


def run(folder, *overrides) -> RunDir:
    return prepare(folder, *WIDE, *OPEN, *overrides)


def command(*arguments) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "harness.inspection.step_benchmark", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two variants, one with a feed-forward layer sixty-four times as wide."""
    folder = tmp_path_factory.mktemp("pair")
    return [run(folder, *THIN), run(folder, *THICK)]


def files(runs) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for each in runs for path in each.path.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_command_prints_one_object_and_leaves_the_runs_alone(pair):
    before = files(pair)
    done = command("--steps", 3, *(each.path for each in pair))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["scale"], answer["steps"]) == ("xs", 3)
    assert answer["control"] == "thin"
    assert all(len(quad) == 4 for quad in answer["visits"]["thick"])
    assert len(answer["visits"]["thick"]) >= 4
    assert answer["variants"].keys() == {"thin", "thick"}
    for measured in answer["variants"].values():
        assert measured.keys() == {"step_seconds", "peak_bytes"}
    assert files(pair) == before


@pytest.mark.slow
def test_a_model_of_many_times_the_size_takes_longer_and_holds_more(pair):
    thin, thick = step_benchmark.time_block(step_benchmark.open_block(pair), 9)["variants"].values()
    assert thick["step_seconds"] > 2 * thin["step_seconds"]
    assert thick["peak_bytes"] > 5 * thin["peak_bytes"]


def test_each_treatment_is_timed_against_the_control_with_the_same_number_of_steps(pair, monkeypatch):
    asked = []

    def visit(self, variant, steps):
        asked.append((variant, steps))
        return [0.1 if variant == "thick" else 0.01] * steps

    monkeypatch.setattr(step_benchmark._Visits, "__call__", visit)
    thin, thick = step_benchmark.open_block(pair)
    variant = dataclasses.replace(thin.config.variant, name="third")
    third = dataclasses.replace(thin, config=dataclasses.replace(thin.config, variant=variant))
    answer = step_benchmark.time_block([thin, thick, third], None)
    assert answer["steps"] == 16, "twenty steps of both treatments would take over twenty seconds"
    order = ("thin", "thick", "thick", "thin") * 4 + ("thin", "third", "third", "thin") * 4
    assert asked[3:] == [(name, 16) for name in order]
    timing = read_step_timing(answer)
    assert timing.ratios["thick"].ratio == pytest.approx(10)
    assert timing.ratios["third"].ratio == pytest.approx(1)
    assert timing.step_seconds["thick"] == pytest.approx(0.1)


def test_visits_of_one_variant_in_a_row_keep_its_state(pair):
    (thin, thick) = step_benchmark.open_block(pair)
    programs = {name: step_benchmark._make_programs(each) for name, each in (("a", thin), ("b", thick))}
    visit = step_benchmark._Visits(programs)
    for name in "abba":
        assert len(visit(name, 2)) == 2
        assert visit._loaded
        assert visit._loaded[0] == name


def test_warm_up_is_left_out(pair, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(step_benchmark.time, "perf_counter", lambda: next(clock) ** 2)
    (lane,) = map(step_benchmark._make_programs, step_benchmark.open_block(pair[:1]))
    first = 2 * step_benchmark.WARMUP_STEPS
    visit = step_benchmark._Visits({"thin": lane})
    assert visit("thin", 2) == [2 * first + 1, 2 * (first + 2) + 1]


@pytest.mark.slow
def test_peak_grows_with_the_batch_and_is_the_same_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))
    small, large = (
        step_benchmark.peak_bytes(
            step_benchmark._make_programs(
                step_benchmark._open_variant(run(tmp_path, *THIN, f"scale.batch={b}", f"seed={b}"))
            )
        )
        for b in (8, 32)
    )
    assert small is not None
    assert large is not None
    assert small < large < 4 * small
    assert small == step_benchmark.peak_bytes(
        step_benchmark._make_programs(step_benchmark._open_variant(RunDir(tmp_path / "sweep/xs/thin/seed8")))
    )


@pytest.mark.parametrize("steps", [0, -1])
def test_no_step_is_refused(steps):
    with pytest.raises(UserError, match=f"--steps={steps}"):
        step_benchmark.check_steps(steps)


def test_a_directory_that_is_no_run(tmp_path):
    done = command(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr


def test_runs_of_two_blocks_are_refused(tmp_path, pair):
    with pytest.raises(UserError, match="seed"):
        step_benchmark.open_block([pair[0], run(tmp_path, *THICK, "seed=5")])
    with pytest.raises(UserError, match=r"variant.name=thin is there twice"):
        step_benchmark.open_block([pair[0], pair[0]])
