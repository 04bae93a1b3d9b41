"""Utilisation of timelines that were made by hand, against sums by hand and a count of moments."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.records.run.timeline import PhaseSpan
from harness.records.run.utilisation import PAUSE_SECONDS, describe_utilisation, utilisation

DRAWN = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 9), st.integers(1, 4), st.sampled_from(["train", "save"])),
    min_size=1,
    max_size=8,
)
"""Start, length, width and phase of each lane."""


def span(phase: str, start: float, end: float, width: int = 1, first: int = 0, last: int = 0) -> PhaseSpan:
    return PhaseSpan(phase, start, end, width, 1, first, last)


def test_by_hand():
    wide = [span("compile", 0, 2, 2), span("train", 2, 8, 2, 0, 60), span("save", 8, 9, 2)]
    narrow = [span("train", 1, 5), span("evaluate", 5, 6)]
    found = utilisation([wide, narrow])
    assert found is not None
    assert (found.devices, found.seconds, found.paused) == (3, 9, 0)
    assert found.work == 2 * 6 + 4
    assert found.idle == {"compile": 4, "no lane": 27 - 16 - 4 - 2 - 1, "save": 2, "evaluate": 1}
    assert [*found.idle][:2] == ["compile", "no lane"]
    assert found.share == pytest.approx(16 / 27)
    assert utilisation([wide, narrow], devices=4).share == pytest.approx(16 / 36)


def test_devices_that_share_cores_count_as_the_cores():
    """Four simulated devices on two cores: while all train, each has half a core."""
    pair = [[span("train", 0, 10, 2)], [span("compile", 0, 4, 2), span("train", 4, 12, 2)]]
    found = utilisation(pair, cores=2)
    assert found
    assert (found.devices, found.unit, found.seconds) == (2, "core", 12)
    assert found.work == pytest.approx(10 + 6 + 4)
    assert found.idle == {"compile": pytest.approx(4)}
    assert describe_utilisation(found)[0] == "utilisation 83.3 % of 2 cores over 0:12"
    assert utilisation(pair, cores=8).devices == 4, "more cores than devices say nothing"
    assert utilisation([[span("train", 0, 10)]], devices=8, cores=2).share == pytest.approx(0.5)


def test_steps_that_were_made_again_are_idle():
    lane = [span("train", 0, 10, 1, 0, 100), span("train", 20, 30, 1, 60, 160)]
    found = utilisation([lane])
    assert found.work == pytest.approx(6 + 10)
    assert found.idle["repeated"] == pytest.approx(4)


def test_a_run_that_started_over_threw_all_away():
    lane = [span("train", 0, 10, 1, 0, 100), span("train", 10, 12, 1, 0, 20)]
    found = utilisation([lane])
    assert (found.work, found.idle) == (2, {"repeated": 10})


def test_a_stretch_without_a_step_that_was_gone_back_behind_counts_nothing():
    lane = [
        span("train", 0, 10, 1, 0, 100),
        span("train", 10, 20, 1, 100, 100),
        span("train", 20, 30, 1, 80, 180),
    ]
    found = utilisation([lane])
    assert (found.work, found.idle) == (pytest.approx(8 + 10), {"repeated": pytest.approx(2 + 10)})


def test_a_branch_repeats_nothing():
    branch = PhaseSpan("train", 10, 14, 1, 1, 40, 50, 0.5)
    lane = [span("train", 0, 10, 1, 0, 40), branch, span("train", 14, 20, 1, 40, 100)]
    assert utilisation([lane]).share == 1


def test_a_night_without_a_driver_is_in_no_ones_charge():
    lane = [
        span("train", 0, 10),
        span("train", 10 + PAUSE_SECONDS - 1, 10 + PAUSE_SECONDS),
        span("train", 9999, 10000),
    ]
    found = utilisation([lane])
    assert found.paused == 9999 - 10 - PAUSE_SECONDS
    assert found.seconds == 10 + PAUSE_SECONDS + 1


def test_nothing_at_work_is_no_utilisation():
    assert utilisation([]) is None
    assert utilisation([[], [span("train", 3, 3)]]) is None


@given(DRAWN)
@settings(max_examples=60, deadline=None)
def test_shared_cores_against_a_count_of_every_second(drawn):
    lanes = [[span(phase, start, start + length, width)] for start, length, width, phase in drawn]
    work, peak = 0.0, 0
    for second in range(40):
        busy = [(w, phase) for start, length, w, phase in drawn if start <= second < start + length]
        total = sum(w for w, _ in busy)
        peak = max(peak, total)
        work += sum(w for w, phase in busy if phase == "train") * min(1, 3 / max(total, 1))
    found = utilisation(lanes, cores=3)
    assert found.devices == min(3, peak)
    assert found.work == pytest.approx(work)
    assert found.work + sum(found.idle.values()) == pytest.approx(found.devices * found.seconds)


@given(DRAWN)
@settings(max_examples=60, deadline=None)
def test_against_a_count_of_every_second(drawn):
    lanes = [[span(phase, start, start + length, width)] for start, length, width, phase in drawn]
    table = {}
    for start, length, width, phase in drawn:
        for second in range(start, start + length):
            table.setdefault(second, []).append((width, phase))
    begin, end = min(table), max(table) + 1
    devices = max(sum(width for width, _ in busy) for busy in table.values())
    work = sum(width for busy in table.values() for width, phase in busy if phase == "train")
    found = utilisation(lanes)
    assert (found.devices, found.seconds, found.work) == (devices, end - begin, work)
    assert found.work + sum(found.idle.values()) == pytest.approx(devices * (end - begin))


def test_lines_that_cannot_be_read_are_said_beside_the_shares():
    found = utilisation([[span("train", 0, 8)]])
    assert found is not None
    assert describe_utilisation(found, 2) == [
        *describe_utilisation(found),
        "2 lines of timelines cannot be read, damaged or cut short by a kill",
    ]
