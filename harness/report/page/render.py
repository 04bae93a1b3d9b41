"""The report of a sweep as one HTML file, which fetches nothing."""

from __future__ import annotations

import base64
from pathlib import Path

from harness.compare.results.comparison import INPUT_SHARE, Comparison
from harness.core import atomic_files
from harness.records.paths import SweepDir
from harness.report.charts import panels, sample_grids
from harness.report.charts.marks import AXES
from harness.report.frames.sweep_frames import Frames, read_frames
from harness.report.page import provenance_section
from harness.report.page.html import chart, document, escape_text, fold, paragraph, section, table, top_bar
from harness.report.page.plan_page import plan_section
from harness.report.page.verdict_header import scale_table, verdict_header
from harness.report.tables import comparison_tables as tables
from harness.report.tables import wording
from harness.report.tables.text_table import explain_constant_columns


def write_report(sweep: SweepDir, comparison: Comparison) -> Path:
    """Write `report.html` of a sweep and return its path."""
    return write_page(sweep.report, comparison, read_frames(sweep, comparison))


def write_page(path: Path, comparison: Comparison, content: Frames) -> Path:
    """Write the page of a sweep or of logged curves, and return its path."""
    atomic_files.write_text(path, render_page(comparison, content))
    return path


def render_page(comparison: Comparison, content: Frames) -> str:
    """Return the page as text."""
    specs = panels.panel_specs(comparison, content)
    return document(f"{comparison.experiment}: verdict", _body(comparison, content, set(specs)), specs)


def _body(comparison: Comparison, content: Frames, chart_names: set[str]) -> str:
    fairness, constant = explain_constant_columns(tables.fairness(comparison))
    by_scale = [piece for ladder in comparison.ladder for piece in scale_table(comparison, ladder)]
    lone_runs = tables.unpaired_runs(comparison)
    distances = tables.samples_title(comparison).partition(": ")[2]
    flags = table(tables.flags(comparison)), table(tables.divergence(comparison))
    input_wait = wording.input_wait_text(comparison.times.get(INPUT_SHARE, {}))
    sections = [
        section("Fairness", FAIRNESS, table(fairness), paragraph(constant, "caption")),
        section("Learning rates", TUNING, table(tables.tuning(comparison))),
        section("Ladder", "", chart("ladder", chart_names), *by_scale),
        section(
            "Loss curves",
            CURVES if content.sweep else LOGGED,
            _curve_controls(content, chart_names),
            chart("curves", chart_names),
            chart("others", chart_names) if "others" in chart_names else "",
            f"<h3>{tables.UNPAIRED_TITLE}</h3>{table(lone_runs)}" if lone_runs else "",
        ),
        section(
            "Differences",
            DIFFERENCES if content.sweep else LOGGED_DIFFERENCES,
            chart("deltas", chart_names),
            fold("Looks at decayed checkpoints", tables.looks(comparison)),
            fold("At equal steps, tokens, FLOPs, device-seconds", tables.iso(comparison)),
        ),
        section("Experts", EXPERTS, chart("experts", chart_names), table(tables.experts(comparison)))
        if "experts" in chart_names
        else "",
        section(
            "Metrics",
            METRICS,
            chart("metrics", chart_names) if "metrics" in chart_names else "",
            table(tables.own_metrics(comparison)),
        )
        if comparison.metrics
        else "",
        section("Domains", "", table(tables.domains(comparison))),
        section("Samples", distances, *_sample_figures(content), table(tables.samples(comparison))),
        section("Forgetting", FORGETTING, table(tables.forgetting(comparison))),
        section("Gate", "", table(tables.gate(comparison))),
        section("Flags", "", *flags),
        section("Config differences", "", table(provenance_section.config_differences(content))),
        section("Utilisation", UTILISATION, chart("fleet", chart_names), paragraph(input_wait))
        if "fleet" in chart_names
        else "",
        plan_section(content.plan, chart_names) if content.plan else "",
        section("Provenance", "", *_provenance(comparison, content)),
    ]
    header = top_bar(comparison.experiment) + verdict_header(comparison, content.variants)
    return f"<header>{header}</header><main>{''.join(sections)}</main>"


FAIRNESS = "What each variant was given, compared with the control."
EXPERTS = (
    "Strong: the largest share of assignments of one expert in one layer, times the number of experts (1: "
    "even). Thin: the share of dropped assignments. Both are moving averages; the table has the last tenth."
)
METRICS = (
    "Metrics of the runs' own. Curves: those of each step, as moving averages over 4 % of the run. Table: "
    "means of the last tenth of the steps or of the last evaluation, and differences from the control's run "
    "of the same seed. Each interval holds by itself, not jointly with the others."
)
TUNING = "Loss at the smallest scale, on a seed that the test does not use. *: lowest loss of the variant."
PICK = "Click a name to see it alone, shift-click to add another."
CURVES = (
    "Training loss: lower is better. Faint: single steps; strong: their moving average over 4 % of the run. "
    f"{PICK}"
)
FORGETTING = (
    "Loss on domains that fine-tuning does not train on, at the end minus before the first step: above zero "
    "means forgetting. Each interval holds by itself, not jointly with the others."
)
LOGGED = (
    f"Loss as logged: lower is better. Strong, in long curves: moving average over 4 % of the run. {PICK}"
)
UTILISATION = (
    "Phases of each lane over time. Only training counts as use, without steps that a later attempt repeated."
    " The number of devices is that of all lanes together at the busiest moment, or of the cores they share."
)
DIFFERENCES = (
    "Held-out loss of the treatment minus that of the control, same seed and same tokens: below zero the "
    "treatment is better. The axis is turned over, so that up is better here as it is for k."
)
LOGGED_DIFFERENCES = (
    "Logged loss of the treatment minus that of the control, same seed: below zero the treatment is better. "
    "The axis is turned over, so that up is better here as it is for k."
)


def _sample_figures(content: Frames) -> list[str]:
    figures = [
        f'<figure><img alt="samples of {escape_text(name)}" src="data:image/png;base64,'
        f'{base64.b64encode(picture).decode()}"><figcaption>{escape_text(name)}, guided</figcaption></figure>'
        for name, picture in sample_grids.read_grids(content)
    ]
    return figures + [paragraph(sentence, "note") for sentence in sample_grids.outward_links(content)]


def _provenance(comparison: Comparison, content: Frames) -> list[str]:
    return [
        table(provenance_section.fact_table(comparison, content)),
        table(tables.deviations(comparison)) or paragraph("No deviation from the recorded rule."),
        fold("Amendments in the ledger", provenance_section.amendment_table(content.sweep)),
        fold("Runs and end states", tables.runs(comparison)),
    ]


def _curve_controls(content: Frames, chart_names: set[str]) -> str:
    """Return the controls of the curves: the axes on which they were measured, and log scales."""
    if "curves" not in chart_names:
        return ""
    options = "".join(
        f'<option value="{name}">{title}</option>'
        for name, (title, _) in AXES.items()
        if name == "tokens" or content.losses[name].max()
    )
    return (
        f'<div class="controls"><label>over <select id="axis">{options}</select></label>'
        '<label><input type="checkbox" id="log-x"> log x</label>'
        '<label><input type="checkbox" id="log-y" checked> log loss</label></div>'
    )
