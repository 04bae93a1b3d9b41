"""A timeline tells what was, whatever cut it short and wherever the clock jumped."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.records.paths import RunDir
from harness.records.run import timeline
from harness.records.run.timeline import Timeline, TimelineEntry, phase_spans, read_timeline, unreadable_lines

few = settings(max_examples=60, deadline=None)


@pytest.fixture
def run(tmp_path) -> RunDir:
    return RunDir(tmp_path)


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def told(run: RunDir) -> list[tuple[str, float, int, int]]:
    found = phase_spans(read_timeline(run))
    return [(span.phase, round(span.seconds, 2), span.first, span.last) for span in found]


def attempt(run: RunDir, number: int, *turns: tuple[str, float, int]) -> None:
    """An attempt that turns to each phase after so many seconds, at this step."""
    clock = Clock()
    lane = Timeline(run, number, 2, clock=clock)
    for phase, after, step in turns:
        clock.now += after
        lane.set_phase(phase, step)


def test_one_line_a_change_of_phase(run):
    attempt(run, 1, ("compile", 1, 0), ("train", 2, 0), ("train", 0.1, 5), ("save", 3, 9), ("end", 0.5, 9))
    assert len(run.timeline.read_text().splitlines()) == 5
    assert told(run) == [("start", 1, 0, 0), ("compile", 2, 0, 0), ("train", 3.1, 0, 9), ("save", 0.5, 9, 9)]


def test_a_phase_that_lasts_is_known_until_its_last_tick(run):
    ticks = [("train", timeline.REWRITE_SECONDS + 1, 10 * i) for i in range(5)]
    attempt(run, 1, *ticks)
    assert told(run)[1] == ("train", 4 * (timeline.REWRITE_SECONDS + 1), 0, 40)
    now = read_timeline(run)[-1].time + 7
    assert phase_spans(read_timeline(run), until=now)[-1].seconds == pytest.approx(
        4 * (timeline.REWRITE_SECONDS + 1) + 7
    )


def test_an_attempt_that_was_cut_off_does_not_last_until_the_next(run, monkeypatch):
    attempt(run, 1, ("train", 1, 0), ("save", 2, 8), ("train", 1, 8))
    now = timeline.time.time()
    monkeypatch.setattr(timeline.time, "time", lambda: now + 1000)
    attempt(run, 2, ("train", 1, 8), ("end", 2, 20))
    assert told(run) == [("start", 1, 0, 0), ("train", 2, 0, 8), ("save", 1, 8, 8), ("start", 1, 0, 8),
                         ("train", 2, 8, 20)]  # fmt: skip


@pytest.mark.parametrize("jump", [-86400.0, -10.0, 86400.0])
def test_a_clock_that_jumps_costs_no_duration(run, monkeypatch, jump):
    attempt(run, 1, ("train", 1, 0), ("end", 20, 8))
    now = timeline.time.time()
    monkeypatch.setattr(timeline.time, "time", lambda: now + jump)
    attempt(run, 2, ("train", 1, 8), ("end", 30, 20))
    assert [span[1] for span in told(run)] == [1, 20, 1, 30]


def test_a_jump_inside_an_attempt_is_not_seen(run, monkeypatch):
    clock = Clock()
    lane = Timeline(run, 1, 1, clock=clock)
    lane.set_phase("train", 0)
    monkeypatch.setattr(timeline.time, "time", lambda: 0.0)
    clock.now += 3
    lane.set_phase("end", 4)
    assert told(run) == [("train", 3, 0, 4)]


def test_it_begins_when_its_process_did_unless_the_lane_was_at_work_then(run):
    begun = timeline.time.time() - 5
    Timeline(run, 1, 1, begun).set_phase("train", 0)
    assert told(run)[0][:2] == ("start", pytest.approx(5, abs=0.5))
    Timeline(run, 2, 1, begun).set_phase("train", 0)
    assert [span for span in told(run) if span[1] > 1] == told(run)[:1]


@given(st.data())
@few
def test_a_line_cut_anywhere_costs_only_itself(tmp_path_factory, data):
    run = RunDir(tmp_path_factory.mktemp("run"))
    attempt(run, 1, ("train", 1, 0), ("save", 2, 8))
    content = run.timeline.read_bytes()
    last = content[:-1].rfind(b"\n") + 1
    run.timeline.write_bytes(content[: last + int(data.draw(st.floats(0, 0.99)) * (len(content) - 1 - last))])
    attempt(run, 2, ("train", 1, 4), ("end", 2, 8))
    assert [entry.phase for entry in read_timeline(run)] == ["start", "train", "start", "train", "end"]


@pytest.mark.parametrize(
    "line",
    ["3", "[]", '{"time": 1}', "\xff", '{"time": NaN, "phase": "train", "attempt": 1, "width": 1}',
     '{"time": 1, "phase": "train", "attempt": 1, "width": -2}',
     '{"time": 1, "phase": "train", "attempt": Infinity, "width": 1}',
     '{"time": "x", "phase": "train", "attempt": 1, "width": 1}'],
)  # fmt: skip
def test_a_damaged_line_is_left_out(run, line):
    attempt(run, 1, ("train", 1, 0), ("end", 2, 8))
    before = read_timeline(run)
    with run.timeline.open("a", encoding="latin-1") as file:
        file.write(line + "\n")
    assert read_timeline(run) == before
    assert unreadable_lines(run) == 1


def test_a_flipped_bit_changes_no_line_in_silence(run):
    attempt(run, 1, ("train", 1, 0), ("end", 2, 8))
    before, content = read_timeline(run), run.timeline.read_bytes()
    for bit in range(0, 8 * len(content), 17):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        run.timeline.write_bytes(damaged)
        assert read_timeline(run) == before or unreadable_lines(run), bit
    run.timeline.unlink()
    run.timeline.mkdir()
    assert (read_timeline(run), unreadable_lines(run)) == ([], 1)


def test_lines_without_a_checksum_are_of_an_earlier_version(run):
    attempt(run, 1, ("train", 1, 0), ("end", 2, 8))
    before = read_timeline(run)
    lines = [json.loads(line) for line in run.timeline.read_text().splitlines()]
    older = [{key: value for key, value in line.items() if key != "checksum"} for line in lines]
    run.timeline.write_text("".join(json.dumps(line) + "\n" for line in older))
    assert (read_timeline(run), unreadable_lines(run)) == (before, 0)


def test_no_timeline_is_no_entry(run):
    assert read_timeline(run) == []
    assert phase_spans([]) == []


def test_a_disk_that_takes_no_line_ends_no_run(tmp_path):
    run = RunDir(tmp_path / "gone")
    lane = Timeline(run, 1, 1)
    lane.set_phase("train", 3)
    assert read_timeline(run) == []
    run.path.mkdir()
    lane.set_phase("save", 4)
    assert [entry.phase for entry in read_timeline(run)][-1] == "save"


entries = st.builds(
    TimelineEntry,
    st.floats(-1e6, 2e9, allow_nan=False),
    st.sampled_from(["start", "train", "save", "end"]),
    st.integers(1, 3),
    st.integers(1, 8),
    st.integers(0, 100),
    st.sampled_from([1.0, 0.5]),
)


@given(st.lists(entries, max_size=12), st.none() | st.floats(0, 2e9))
@few
def test_whatever_the_lines_say_no_span_is_negative_and_none_overlap(lines, until):
    found = phase_spans(lines, until)
    assert all(span.end > span.start and math.isfinite(span.seconds) for span in found)
    assert all(a.end <= b.start for a, b in pairwise(found))


def test_a_line_says_what_the_lane_was(run):
    attempt(run, 3, ("train", 1, 7))
    line = json.loads(run.timeline.read_text().splitlines()[-1])
    line.pop("time")
    line.pop("checksum")
    assert line == {"phase": "train", "attempt": 3, "width": 2, "step": 7, "share": 1.0}
