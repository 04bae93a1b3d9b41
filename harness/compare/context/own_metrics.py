"""Metrics of the runs' own at the end of the runs, and their differences to the control by pairs of seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

from harness.compare.inputs.pairing import group_by_variant, one_run_per_seed
from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.context_types import OwnMetricRow
from harness.compare.stats.paired_effects import paired_effect
from harness.records.run.metrics import METRIC_PREFIX, metric_columns, read_curve
from harness.records.run.provenance import MetricFacts

END_SHARE = 0.1
"""Fraction of a run's steps, counted from its end, over which a metric of each step is averaged."""


class _Place(NamedTuple):
    """Metric, and the held-out domain of one that is computed in evaluations."""

    metric: str
    domain: str


def own_metric_rows(
    runs: Sequence[RunRecord], scales: Sequence[str], control: str
) -> tuple[OwnMetricRow, ...]:
    """Build one row per scale, metric, domain and variant, the control first. Only finished runs count. The
    intervals are not corrected for multiple testing."""
    measured = [run for run in runs if run.complete and run.provenance.facts.metrics and run.directory]
    rows = []
    for scale in scales:
        groups = group_by_variant(measured, scale, control)
        values = {name: _values_by_place(group) for name, group in groups.items()}
        facts = {key: value for run in measured for key, value in run.provenance.facts.metrics.items()}
        for place in sorted({place for by_place in values.values() for place in by_place}):
            rows += _rows(scale, place, values, control, _facts_of(place.metric, facts))
    return tuple(rows)


def _rows(
    scale: str,
    place: _Place,
    values: Mapping[str, Mapping[_Place, Mapping[int, float]]],
    control: str,
    facts: MetricFacts,
) -> list[OwnMetricRow]:
    """Build the rows of one metric at one scale."""
    base = values.get(control, {}).get(place, {})
    rows = []
    for variant, by_place in values.items():
        if not (by_seed := by_place.get(place)):
            continue
        seeds = sorted(by_seed.keys() & base.keys()) if variant != control else []
        effect = paired_effect([base[s] for s in seeds], [by_seed[s] for s in seeds]) if seeds else None
        mean = sum(by_seed.values()) / len(by_seed)
        names = scale, variant, place.metric, place.domain
        rows.append(OwnMetricRow(*names, facts.unit, facts.better, len(by_seed), mean, effect))
    return rows


def _values_by_place(runs: Sequence[RunRecord]) -> dict[_Place, dict[int, float]]:
    """Return the value at the end by metric, domain and seed."""
    values: dict[_Place, dict[int, float]] = defaultdict(dict)
    for seed, run in one_run_per_seed(runs).items():
        for place, value in _end_values(run).items():
            values[place][seed] = value
    return values


def _end_values(run: RunRecord) -> dict[_Place, float]:
    assert run.directory is not None
    steps, evals = (read_curve(run.directory, kind) for kind in ("steps", "evals"))
    last_steps = steps.tail(max(1, round(END_SHARE * steps.height)))
    last_evals = evals.filter(pl.col("step") == pl.col("step").max())
    ends = [(column, "", last_steps[column].mean()) for column in metric_columns(steps.columns)]
    for row in last_evals.to_dicts():
        ends += [(column, row["domain"], row[column]) for column in metric_columns(evals.columns)]
    return {
        _Place(column.removeprefix(METRIC_PREFIX), domain): float(value)
        for column, domain, value in ends
        if isinstance(value, float)
    }


def _facts_of(metric: str, facts: Mapping[str, MetricFacts]) -> MetricFacts:
    """Return the facts of a metric; a column may name one key of several behind a dot."""
    names = [name for name in facts if metric == name or metric.startswith(f"{name}.")]
    return facts[max(names, key=len)] if names else MetricFacts("")
