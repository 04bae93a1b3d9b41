"""Parts of an HTML page: sections, tables, charts, and the document around them.

Every text is escaped where it enters. In addition the content security policy allows only the scripts with
the listed hashes and no connection at all, so that a text that was not escaped still cannot run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from typing import Any

from harness.core.number_format import plain_text
from harness.report.charts import theme
from harness.report.charts.marks import AXES
from harness.report.page.assets import SCRIPT, vega_bundle
from harness.report.page.page_style import STYLE
from harness.report.tables.text_table import Table

HINT = '<p class="hint">Wider than the page: scroll to the right.</p>'
"""Line that the script shows above a table or a chart that is wider than the page."""


def document(title: str, body: str, specs: Mapping[str, Any]) -> str:
    """Return the whole file. It fetches nothing, and draws the charts from their specifications."""
    scripts = [vega_bundle(), SCRIPT]
    tones = {"light": theme.vega_config(theme.LIGHT), "dark": theme.vega_config(theme.DARK)}
    axes = {name: {"title": title, "label": label} for name, (title, label) in AXES.items()}
    data = _json({"specs": specs, "tones": tones, "axes": axes})
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_content_security_policy(scripts)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape_text(title)}</title>",
        f"<style>{STYLE}</style></head><body>",
        body,
        f'<script type="application/json" id="report">{data}</script>',
        *[f"<script>{script}</script>" for script in scripts],
        "</body></html>\n",
    ]
    return "\n".join(lines)


def top_bar(kicker: str) -> str:
    """Return the line above the title, with the switch between light and dark."""
    return (
        f'<div class="bar"><p class="kicker">{escape_text(kicker)}</p>'
        '<button id="tone" type="button">light / dark</button></div>'
    )


def chart(name: str, chart_names: set[str]) -> str:
    """Return the element in which the script draws a chart, or a note if it has no data."""
    if name not in chart_names:
        return paragraph("Nothing to draw yet.", "caption")
    return f'{HINT}<div class="chart" id="chart-{name}"></div>'


def section(title: str, caption: str, *content: str) -> str:
    """Return a section, or '' if it has no content."""
    if not any(content):
        return ""
    return f"<section><h2>{title}</h2>{paragraph(caption, 'caption')}{''.join(content)}</section>"


def fold(title: str, content: Table) -> str:
    """Return a table that is folded until it is clicked, or '' if it has no rows."""
    return f"<details><summary>{title}</summary>{table(content)}</details>" if content else ""


def table(content: Table) -> str:
    """Return an HTML table, or '' without rows. Row names that repeat the row above are softer."""
    if not content:
        return ""
    head = "".join(_cell("th", content, i, cell, "") for i, cell in enumerate(content.columns))
    body, above = [], ("",) * len(content.columns)
    for row in content.rows:
        repeats = [i < content.left and row[: i + 1] == above[: i + 1] for i in range(len(row))]
        cells = (_cell("td", content, i, cell, " same" * repeats[i]) for i, cell in enumerate(row))
        body.append(f"<tr>{''.join(cells)}</tr>")
        above = row
    return (
        f'{HINT}<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(tag: str, content: Table, position: int, cell: str, kind: str) -> str:
    side = "words" if content.is_text_column(position) else "number"
    return f'<{tag} class="{side}{kind}">{escape_text(cell)}</{tag}>'


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of a CSS class, or '' without text."""
    return f'<p class="{kind}">{escape_text(text)}</p>' if text else ""


def escape_text(text: str) -> str:
    """Return one line of plain text, escaped for HTML."""
    return escape(plain_text(text))


def _json(content: dict) -> str:
    """Return JSON that cannot end its script element or begin a comment in it."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _content_security_policy(scripts: list[str]) -> str:
    """Return a policy without network and with only these scripts. Vega needs unsafe-eval for expressions."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
