"""One HTML file that holds the whole report: nothing is fetched, and nothing in it can be made to run."""

from __future__ import annotations

from pathlib import Path

from harness.compare.results.comparison import INPUT, Comparison
from harness.compare.results.verdict_types import Ladder
from harness.core import atomic_files
from harness.records.paths import SweepDir
from harness.report.charts import panels, sample_grids
from harness.report.charts.marks import AXES
from harness.report.frames.sweep_frames import Frames, read_frames
from harness.report.page import provenance_section
from harness.report.page.html import bar, chart, document, fold, paragraph, section, table, text_of
from harness.report.page.plan_page import plan_section
from harness.report.tables import comparison as tables
from harness.report.tables import wording
from harness.report.tables.text_table import split


def write_report(sweep: SweepDir, comparison: Comparison) -> Path:
    """Write `report.html` of a sweep and return its path."""
    return write_page(sweep.report, comparison, read_frames(sweep, comparison))


def write_page(path: Path, comparison: Comparison, content: Frames) -> Path:
    """Write the page of a sweep, or of curves from elsewhere, and return its path."""
    atomic_files.write_text(path, render(comparison, content))
    return path


def render(comparison: Comparison, content: Frames) -> str:
    """The page as text."""
    specs = panels.draw(comparison, content)
    return document(f"{comparison.experiment}: verdict", _body(comparison, content, set(specs)), specs)


def _body(comparison: Comparison, content: Frames, drawn: set[str]) -> str:
    fairness, same = split(tables.fairness(comparison))
    by_scale = [_by_scale(comparison, ladder) for ladder in comparison.ladder]
    flags = table(tables.flags(comparison)), table(tables.divergence(comparison))
    sections = [
        section(
            "Fairness",
            "What each variant was given, against the control.",
            table(fairness),
            paragraph(same, "caption"),
        ),
        section("Learning rates", TUNING, table(tables.tuning(comparison))),
        section("Ladder", "", chart("ladder", drawn), *by_scale),
        section(
            "Loss curves",
            CURVES if content.sweep else LOGGED,
            _controls(content, drawn),
            chart("curves", drawn),
            *_others(comparison, drawn),
        ),
        section(
            "Differences",
            DIFFERENCES if content.sweep else LOGGED_DIFFERENCES,
            chart("deltas", drawn),
            *_more_differences(comparison),
        ),
        *_experts(comparison, drawn),
        section("Domains", "", table(tables.domains(comparison))),
        section(
            "Samples",
            tables.samples_title(comparison).partition(": ")[2],
            *sample_grids.figures(content),
            table(tables.samples(comparison)),
        ),
        section("Forgetting", FORGETTING, table(tables.forgetting(comparison))),
        section("Gate", "", table(tables.gate(comparison))),
        section("Flags", "", *flags),
        section("Config differences", "", table(provenance_section.config_differences(content))),
        _fleet(comparison, drawn),
        plan_section(content.plan, drawn) if content.plan else "",
        section("Provenance", "", *_provenance(comparison, content)),
    ]
    return f"{_header(comparison)}<main>{''.join(sections)}</main>"


def _experts(comparison: Comparison, drawn: set[str]) -> list[str]:
    """Nothing where no variant has any."""
    if "experts" not in drawn:
        return []
    return [section("Experts", EXPERTS, chart("experts", drawn), table(tables.experts(comparison)))]


def _others(comparison: Comparison, drawn: set[str]) -> list[str]:
    """What is beside the comparison: curves in other units, and the outcomes of runs without a sibling."""
    charts = [chart("others", drawn)] if "others" in drawn else []
    runs = tables.alone(comparison)
    return [*charts, *([f"<h3>{tables.ALONE}</h3>{table(runs)}"] if runs else [])]


def _fleet(comparison: Comparison, drawn: set[str]) -> str:
    if "fleet" not in drawn:
        return ""
    waited = wording.waited(comparison.times.get(INPUT, {}))
    return section("Fleet", FLEET, chart("fleet", drawn), paragraph(waited))


def _more_differences(comparison: Comparison) -> list[str]:
    return [
        fold("Looks at decayed checkpoints", tables.looks(comparison)),
        fold("At equal steps, tokens, FLOPs, device-seconds", tables.iso(comparison)),
    ]


EXPERTS = (
    "Strong: the largest share of assignments that one expert of one layer got, times the number of experts"
    " (1: even). Thin: what was dropped, as a share. Both are moving averages; the table has the last tenth."
)
TUNING = "Loss at the smallest scale, on a seed that the test does not use. *: the lowest of a variant."
PICK = "Click a name to see it alone, shift-click to add another."
CURVES = f"Training loss. Faint: single steps; strong: their moving average over 4 % of the run. {PICK}"
FORGETTING = (
    "Loss on domains that fine-tuning does not train on, at the end minus before the first step: above zero "
    "is forgotten. Each interval stands for itself."
)
LOGGED = f"Loss as it was logged; of long curves strong: the moving average over 4 % of the run. {PICK}"
FLEET = (
    "What each lane did when. Only training counts as use; steps that an attempt lost, and a later one made "
    "again, do not. Devices are those that all lanes had together at the busiest moment."
)
DIFFERENCES = (
    "Held-out loss of the treatment minus that of the control, same seed and same tokens: "
    "below zero the treatment is better."
)
LOGGED_DIFFERENCES = (
    "Logged loss of the treatment minus that of the control, same seed: below zero the treatment is better."
)


def _header(comparison: Comparison) -> str:
    hypothesis = comparison.rule.hypothesis
    verdict = " ".join(f"<span>{text_of(part)}</span>" for part in wording.sentences(comparison.verdict))
    return (
        f"<header>{bar(comparison.experiment)}"
        f'<h1 id="verdict">{verdict}</h1>'
        + (paragraph(f"Hypothesis: {hypothesis}", "hypothesis") if hypothesis else "")
        + f'<div class="cards">{"".join(_card(item) for item in comparison.ladder)}</div>'
        + "".join(paragraph(note, "note") for note in comparison.notes)
        + "</header>"
    )


def _card(ladder: Ladder) -> str:
    known = ", positive control" if ladder.positive_control else ""
    decided = wording.decided(ladder.decision, treatment=ladder.variant, control=ladder.control)
    lines = [ladder.reason, *wording.ladder_lines(ladder)]
    if ladder.settle:
        lines.append(f"What would settle it: {ladder.settle}.")
    return (
        f'<article class="card {ladder.decision.value}">'
        f'<p class="soft">{text_of(ladder.variant)} against {text_of(ladder.control)}{known}</p>'
        f'<p class="decision">{text_of(decided)} <small>{ladder.decision.value}</small></p>'
        f'<p class="k">k = {text_of(wording.multiplier(ladder.k))}</p>'
        f'<p class="soft">{text_of(wording.pooled(ladder))}</p>'
        f"<ul>{''.join(f'<li>{text_of(line)}</li>' for line in lines)}</ul></article>"
    )


def _by_scale(comparison: Comparison, ladder: Ladder) -> str:
    title = f"<h3>{text_of(ladder.variant)} against {text_of(ladder.control)}, by scale</h3>"
    return title + table(tables.rungs(comparison, ladder))


def _provenance(comparison: Comparison, content: Frames) -> list[str]:
    return [
        table(provenance_section.facts(comparison, content)),
        table(tables.deviations(comparison))
        or paragraph("No deviation from the rule that was written down."),
        fold("Amendments in the ledger", provenance_section.amendments(content.sweep)),
        fold("Runs and end states", tables.runs(comparison)),
    ]


def _controls(content: Frames, drawn: set[str]) -> str:
    """What the curves can be drawn over: the axes on which they were measured."""
    if "curves" not in drawn:
        return ""
    known = {
        name: title for name, (title, _) in AXES.items() if name == "tokens" or content.losses[name].max()
    }
    options = "".join(f'<option value="{name}">{title}</option>' for name, title in known.items())
    return (
        f'<div class="controls"><label>over <select id="axis">{options}</select></label>'
        '<label><input type="checkbox" id="log-x"> log x</label>'
        '<label><input type="checkbox" id="log-y" checked> log loss</label></div>'
    )
