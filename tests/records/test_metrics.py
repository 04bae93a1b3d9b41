"""A curve survives kills and compaction, and ends before the first damage."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from harness.records.paths import RunDir
from harness.records.run import metrics
from tests.records.scratch import few, fresh


def rows(start: int, end: int) -> list[dict]:
    return [
        dict.fromkeys(metrics.STEPS, 0) | {"step": step, "loss": step / 7}
        for step in range(start + 1, end + 1)
    ]


def sealed_parts(*ends: int) -> RunDir:
    """A run with parts that end at these steps."""
    run, start = RunDir(fresh()), 0
    for end in ends:
        metrics.write_part(run, "steps", start, end, rows(start, end))
        metrics.write_part(run, "evals", start, end, [])
        start = end
    return run


cuts = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(
    lambda widths: [sum(widths[: i + 1]) for i in range(len(widths))]
)


class TestMetrics:
    @given(cuts, st.data())
    @few
    def test_one_flipped_bit_anywhere_is_seen_and_named(self, ends, data):
        run = sealed_parts(*ends)
        victim = data.draw(st.sampled_from(metrics.list_parts(run, "steps")))
        content = bytearray(victim.path.read_bytes())
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
        victim.path.write_bytes(content)
        until, damage = metrics.complete_until(run)
        assert until == victim.start
        assert [sentence.partition(": ")[0] for sentence in damage] == [str(victim.path)]
        assert metrics.read_curve(run, "steps").height == victim.start

    @given(cuts)
    @few
    def test_the_curve_is_the_same_before_and_after_compaction(self, ends):
        run = sealed_parts(*ends)
        before = metrics.read_curve(run, "steps")
        metrics.merge_parts(run)
        assert metrics.read_curve(run, "steps").equals(before)
        assert len(metrics.list_parts(run, "steps")) == 1
        assert metrics.complete_until(run) == (ends[-1], [])

    @given(cuts, st.integers(0, 3))
    @few
    def test_a_kill_during_compaction_loses_nothing(self, ends, removed):
        run = sealed_parts(*ends)
        before = metrics.read_curve(run, "steps")
        for kind in metrics.SCHEMAS:
            old = metrics.list_parts(run, kind)
            joined = metrics.read_curve(run, kind).to_dicts()
            new = metrics.write_part(run, kind, 0, ends[-1], joined)
            for part in [part for part in old if part.path != new.path][:removed]:
                part.path.unlink()
        assert metrics.read_curve(run, "steps").equals(before)
        assert metrics.complete_until(run) == (ends[-1], [])

    @given(cuts, st.data())
    @few
    def test_dropping_keeps_whole_parts_up_to_the_step(self, ends, data):
        run = sealed_parts(*ends)
        step = data.draw(st.sampled_from([0, *ends]))
        metrics.truncate_after(run, step)
        assert metrics.complete_until(run) == (step, [])

    def test_a_gap_ends_the_curve(self):
        run = sealed_parts(5, 10, 15)
        metrics.list_parts(run, "steps")[1].path.unlink()
        assert metrics.complete_until(run)[0] == 5
        assert metrics.read_curve(run, "steps").height == 5

    def test_no_part_is_an_empty_curve(self, tmp_path):
        frame = metrics.read_curve(RunDir(tmp_path), "evals")
        assert frame.schema == pl.Schema(metrics.EVALS)
