"""Loads and drops stand in the report where a variant has experts, and nowhere else."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import cast

import polars as pl
import pytest

from harness.compare.context.secondary_results import expert_uses
from harness.compare.inputs.run_records import read_runs
from harness.compare.results.comparison import Comparison
from harness.records.paths import SweepDir
from harness.records.run import metrics
from harness.records.run.provenance import read_provenance, write_provenance
from harness.report.charts import panels
from harness.report.frames import sweep_frames
from harness.report.page.render import render_page
from harness.report.tables import comparison_tables as comparison
from tests.report.conftest import sweep_of


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> SweepDir:
    """A sweep whose `hybrid` has experts: load 4 falls to 1 evenly, a tenth is dropped."""
    sweep = sweep_of(tmp_path_factory.mktemp("mixed"), ("mha", "hybrid"), steps=100)
    for run in sweep.runs():
        record = read_provenance(run)
        assert record
        if record.variant == "hybrid":
            facts = dataclasses.replace(record.facts, active_parameters=record.facts.non_embedding // 2)
            write_provenance(run, dataclasses.replace(record, facts=facts))
            rows = metrics.read_curve(run, "steps").with_columns(
                expert_load=4 - 3 * pl.col("step") / 100, expert_dropped=pl.lit(0.1)
            )
            last = cast(int, rows["step"].max())
            metrics.truncate_after(run, 0)
            for kind in metrics.SCHEMAS:
                metrics.write_part(run, kind, 0, last, rows.to_dicts() if kind == "steps" else [])
    return sweep


def test_the_table_has_the_means_of_the_last_tenth(mixed):
    uses = expert_uses(read_runs(mixed), ["xs", "s", "m"])
    assert {(use.scale, use.variant, use.n) for use in uses} == {(s, "hybrid", 3) for s in ("xs", "s", "m")}
    assert uses[0].load == pytest.approx(4 - 3 * (91 + 100) / 2 / 100)
    assert uses[0].dropped == pytest.approx(0.1)


def test_panel_and_section_are_drawn_where_there_are_experts(mixed, sweep, told: Comparison):
    content = sweep_frames.read_frames(mixed, told)
    chart = panels.expert_load_chart(content)
    assert chart is not None
    rows = list(csv.DictReader(io.StringIO(chart.to_dict(validate=True)["data"]["values"])))
    assert {row["variant"] for row in rows} == {"hybrid"}
    assert float(rows[0]["load"]) > 3.9 > 1.1 > float(rows[-1]["load"])
    assert "<h2>Experts</h2>" in render_page(told, content)
    assert panels.expert_load_chart(sweep_frames.read_frames(sweep, told)) is None


def test_active_parameters_stand_where_they_are_not_all(told: Comparison):
    assert "active" not in comparison.fairness(told).columns
    row = dataclasses.replace(told.fairness[1], active_parameters=40_000)
    shown = comparison.fairness(dataclasses.replace(told, fairness=(told.fairness[0], row)))
    at = shown.columns.index("active")
    assert [cells[at] for cells in shown.rows] == ["–", "40k"]
