"""One HTML file that holds the whole report: nothing is fetched, and nothing in it can be made to run.

Every text is escaped where it enters the page; beyond that the page's own policy allows only the
scripts whose hashes it names and no connection at all, so that a text which slipped through
stays inert.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from pathlib import Path

from harness.compare.results import INPUT, Comparison, Ladder
from harness.records import atomic
from harness.records.layout import SweepDir
from harness.report import panels, provenance, samples, tables, theme, words
from harness.report.assets import SCRIPT, STYLE, vega_bundle
from harness.report.frames import Frames, read_frames
from harness.report.marks import AXES
from harness.report.tables import Table


def write_report(sweep: SweepDir, comparison: Comparison) -> Path:
    """Write `report.html` of a sweep and return its path."""
    return write_page(sweep.report, comparison, read_frames(sweep, comparison))


def write_page(path: Path, comparison: Comparison, content: Frames) -> Path:
    """Write the page of a sweep, or of curves from elsewhere, and return its path."""
    atomic.write_text(path, render(comparison, content))
    return path


def render(comparison: Comparison, content: Frames) -> str:
    """The page as text."""
    specs = panels.draw(comparison, content)
    scripts = [vega_bundle(), SCRIPT]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(comparison.experiment)}: verdict</title>",
            f"<style>{STYLE}</style></head><body>",
            _body(comparison, content, set(specs)),
            f'<script type="application/json" id="report">{_json(_payload(specs))}</script>',
            *[f"<script>{script}</script>" for script in scripts],
            "</body></html>\n",
        ]
    )


def _payload(specs: dict[str, panels.Spec]) -> dict:
    """What the page's script draws from."""
    tones = {"light": theme.vega_config(theme.LIGHT), "dark": theme.vega_config(theme.DARK)}
    axes = {name: {"title": title, "label": label} for name, (title, label) in AXES.items()}
    return {"specs": specs, "tones": tones, "axes": axes}


def _body(comparison: Comparison, content: Frames, drawn: set[str]) -> str:
    fairness, same = tables.split(tables.fairness(comparison))
    by_scale = [_by_scale(comparison, ladder) for ladder in comparison.ladder]
    flags = _table(tables.flags(comparison)), _table(tables.divergence(comparison))
    sections = [
        _section(
            "Fairness",
            "What each variant was given, against the control.",
            _table(fairness),
            _p(same, "caption"),
        ),
        _section("Learning rates", TUNING, _table(tables.tuning(comparison))),
        _section("Ladder", "", _chart("ladder", drawn), *by_scale),
        _section(
            "Loss curves",
            CURVES if content.sweep else LOGGED,
            _controls(content, drawn),
            _chart("curves", drawn),
            *_others(comparison, drawn),
        ),
        _section(
            "Differences",
            DIFFERENCES if content.sweep else LOGGED_DIFFERENCES,
            _chart("deltas", drawn),
            *_more_differences(comparison),
        ),
        *_experts(comparison, drawn),
        _section("Domains", "", _table(tables.domains(comparison))),
        _section(
            "Samples",
            tables.samples_title(comparison).partition(": ")[2],
            *samples.figures(content),
            _table(tables.samples(comparison)),
        ),
        _section("Forgetting", FORGETTING, _table(tables.forgetting(comparison))),
        _section("Gate", "", _table(tables.gate(comparison))),
        _section("Flags", "", *flags),
        _section("Config differences", "", _table(provenance.config_differences(content))),
        _fleet(comparison, drawn),
        _section("Provenance", "", *_provenance(comparison, content)),
    ]
    return f"{_header(comparison)}<main>{''.join(sections)}</main>"


def _experts(comparison: Comparison, drawn: set[str]) -> list[str]:
    """Nothing where no variant has any."""
    if "experts" not in drawn:
        return []
    return [_section("Experts", EXPERTS, _chart("experts", drawn), _table(tables.experts(comparison)))]


def _others(comparison: Comparison, drawn: set[str]) -> list[str]:
    """What is beside the comparison: curves in other units, and the outcomes of runs without a sibling."""
    charts = [_chart("others", drawn)] if "others" in drawn else []
    runs = tables.alone(comparison)
    return [*charts, *([f"<h3>{tables.ALONE}</h3>{_table(runs)}"] if runs else [])]


def _fleet(comparison: Comparison, drawn: set[str]) -> str:
    if "fleet" not in drawn:
        return ""
    waited = words.waited(comparison.times.get(INPUT, {}))
    return _section("Fleet", FLEET, _chart("fleet", drawn), _p(waited))


def _more_differences(comparison: Comparison) -> list[str]:
    return [
        _fold("Looks at decayed checkpoints", tables.looks(comparison)),
        _fold("At equal steps, tokens, FLOPs, device-seconds", tables.iso(comparison)),
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
    verdict = " ".join(f"<span>{_text(part)}</span>" for part in words.sentences(comparison.verdict))
    return (
        '<header><div class="bar">'
        f'<p class="kicker">{_text(comparison.experiment)}</p>'
        '<button id="tone" type="button">light / dark</button></div>'
        f'<h1 id="verdict">{verdict}</h1>'
        + (_p(f"Hypothesis: {hypothesis}", "hypothesis") if hypothesis else "")
        + f'<div class="cards">{"".join(_card(item) for item in comparison.ladder)}</div>'
        + "".join(_p(note, "note") for note in comparison.notes)
        + "</header>"
    )


def _card(ladder: Ladder) -> str:
    known = ", positive control" if ladder.positive_control else ""
    decided = words.decided(ladder.decision, treatment=ladder.variant, control=ladder.control)
    lines = [ladder.reason, *words.ladder_lines(ladder)]
    if ladder.settle:
        lines.append(f"What would settle it: {ladder.settle}.")
    return (
        f'<article class="card {ladder.decision.value}">'
        f'<p class="soft">{_text(ladder.variant)} against {_text(ladder.control)}{known}</p>'
        f'<p class="decision">{_text(decided)} <small>{ladder.decision.value}</small></p>'
        f'<p class="k">k = {_text(words.multiplier(ladder.k))}</p>'
        f'<p class="soft">{_text(words.pooled(ladder))}</p>'
        f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul></article>"
    )


def _by_scale(comparison: Comparison, ladder: Ladder) -> str:
    title = f"<h3>{_text(ladder.variant)} against {_text(ladder.control)}, by scale</h3>"
    return title + _table(tables.rungs(comparison, ladder))


def _provenance(comparison: Comparison, content: Frames) -> list[str]:
    return [
        _table(provenance.facts(comparison, content)),
        _table(tables.deviations(comparison)) or _p("No deviation from the rule that was written down."),
        _fold("Amendments in the ledger", provenance.amendments(content.sweep)),
        _fold("Runs and end states", tables.runs(comparison)),
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


def _chart(name: str, drawn: set[str]) -> str:
    if name not in drawn:
        return _p("Nothing to draw yet.", "caption")
    return f'<div class="chart" id="chart-{name}"></div>'


def _section(title: str, caption: str, *content: str) -> str:
    if not any(content):
        return ""
    return f"<section><h2>{title}</h2>{_p(caption, 'caption')}{''.join(content)}</section>"


def _fold(title: str, content: Table) -> str:
    return f"<details><summary>{title}</summary>{_table(content)}</details>" if content else ""


def _table(content: Table) -> str:
    """An HTML table, or nothing where there are no rows. A name that stands above already is pale."""
    if not content:
        return ""
    head = "".join(_cell("th", content, i, cell, "") for i, cell in enumerate(content.columns))
    body, above = [], ("",) * len(content.columns)
    for row in content.rows:
        pale = [i < content.left and row[: i + 1] == above[: i + 1] for i in range(len(row))]
        cells = (_cell("td", content, i, cell, " same" * pale[i]) for i, cell in enumerate(row))
        body.append(f"<tr>{''.join(cells)}</tr>")
        above = row
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(tag: str, content: Table, position: int, cell: str, kind: str) -> str:
    side = "words" if content.worded(position) else "number"
    return f'<{tag} class="{side}{kind}">{_text(cell)}</{tag}>'


def _p(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{_text(text)}</p>' if text else ""


def _text(text: str) -> str:
    return escape(words.plain_text(text))


def _json(content: dict) -> str:
    """JSON that cannot end the script element that holds it, nor begin a comment there."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _policy(scripts: list[str]) -> str:
    """No network, and only these scripts; Vega compiles its expressions, hence unsafe-eval."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
