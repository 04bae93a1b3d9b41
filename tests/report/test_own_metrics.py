"""Metrics of the runs' own stand in the report, in the table and in the JSON, with differences by pairs."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import cast

import numpy as np
import polars as pl
import pytest
from scipy import stats

from harness.compare.context.own_metrics import own_metric_rows
from harness.compare.inputs.run_records import read_runs
from harness.compare.judge import compare
from harness.compare.results.comparison import Comparison
from harness.compare.results.to_json import to_json
from harness.records.paths import SweepDir
from harness.records.run import metrics
from harness.records.run.provenance import MetricFacts, read_provenance, write_provenance
from harness.report.charts import panels
from harness.report.frames import sweep_frames
from harness.report.page.render import render_page
from harness.report.tables import comparison_tables as tables
from tests.report.conftest import sweep_of

FACTS = {"norm": MetricFacts("step", "1"), "bits": MetricFacts("evaluation", "bits", "lower")}
ENDS = {"mha": [1.0, 2.0, 3.0], "hybrid": [1.5, 2.7, 3.6]}
"""Metric of the last tenth of the steps, by seed."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> SweepDir:
    """A sweep with a metric of each step, which ends at ENDS, and one of each evaluation."""
    sweep = sweep_of(tmp_path_factory.mktemp("measured"), ("mha", "hybrid"), steps=100)
    for run in sweep.runs():
        record = read_provenance(run)
        assert record
        write_provenance(
            run, dataclasses.replace(record, facts=dataclasses.replace(record.facts, metrics=FACTS))
        )
        end = ENDS[record.variant][record.seed]
        late = pl.when(pl.col("step") > 90).then(end).otherwise(0.0)
        steps = metrics.read_curve(run, "steps").with_columns(late.alias("metric.norm.all"))
        evals = metrics.read_curve(run, "evals").with_columns((pl.col("loss") / 2).alias("metric.bits"))
        last = cast(int, steps["step"].max())
        metrics.truncate_after(run, 0)
        for kind, rows in (("steps", steps), ("evals", evals)):
            metrics.write_part(run, kind, 0, last, rows.to_dicts())
    return sweep


def test_differences_are_paired_by_seed(measured):
    rows = [row for row in own_metric_rows(read_runs(measured), ["xs"], "mha") if row.metric == "norm.all"]
    control, treatment = rows
    assert (control.variant, control.mean, control.delta, control.unit) == ("mha", 2.0, None, "1")
    assert treatment.mean == pytest.approx(np.mean(ENDS["hybrid"]))
    expected = stats.ttest_rel(ENDS["hybrid"], ENDS["mha"]).confidence_interval(0.95)
    assert treatment.delta is not None
    assert (treatment.delta.low, treatment.delta.high) == pytest.approx((expected.low, expected.high))


def test_a_metric_of_evaluations_stands_for_each_domain(measured):
    runs = read_runs(measured)
    rows = [row for row in own_metric_rows(runs, ["xs"], "mha") if row.metric == "bits"]
    assert {row.domain for row in rows} == {*runs[0].evals.columns["domain"]}
    assert all((row.unit, row.better) == ("bits", "lower") for row in rows)
    domain = rows[0].domain
    losses = [
        run.evals.final.by_domain[domain]
        for run in runs
        if run.key[:2] == ("xs", "mha") and run.evals.final is not None
    ]
    assert rows[0].mean == pytest.approx(np.mean(losses) / 2)


def test_report_table_and_json_have_them(measured, sweep, told: Comparison):
    comparison = compare(measured)
    content = sweep_frames.read_frames(measured, comparison)
    chart = panels.metric_curves(content)
    assert chart is not None
    rows = list(csv.DictReader(io.StringIO(chart.to_dict(validate=True)["data"]["values"])))
    assert {row["label"] for row in rows} == {f"norm.all, {scale}" for scale in ("xs", "s", "m")}
    assert "<h2>Metrics</h2>" in render_page(comparison, content)
    assert {row[1] for row in tables.own_metrics(comparison).rows} == {"norm.all", "bits"}
    assert to_json(comparison)["metrics"][0]["metric"] == "bits"
    assert "<h2>Metrics</h2>" not in render_page(told, sweep_frames.read_frames(sweep, told))
    assert panels.metric_curves(sweep_frames.read_frames(sweep, told)) is None
