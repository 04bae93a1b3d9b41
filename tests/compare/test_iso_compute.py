"""Differences at equal steps, tokens and FLOPs: read between decayed points, and nowhere else."""

from __future__ import annotations

import pytest

from tests.compare.judging import ONE, is_treatment, judged, only


def test_iso_rows_read_between_decayed_points(tmp_path):
    def edit(draft):
        if is_treatment(draft):
            for row in [*draft.evals, *(r for rows in draft.branches.values() for r in rows)]:
                row["flops"] *= 1.25

    rows = {row.axis: row for row in only(judged(tmp_path, ONE, edit)).iso}
    assert rows["flops"].delta.mean is not None
    assert rows["tokens"].delta.mean is not None
    assert rows["flops"].delta.mean > rows["tokens"].delta.mean
    assert rows["tokens"].delta.mean == pytest.approx(rows["steps"].delta.mean)


def test_iso_rows_say_nothing_outside_the_decayed_points(tmp_path):
    def edit(draft):
        if is_treatment(draft):
            for row in [*draft.evals, *(r for rows in draft.branches.values() for r in rows)]:
                row["flops"] *= 3

    assert [row.axis for row in only(judged(tmp_path, ONE, edit)).iso] == ["steps", "tokens"]
