"""Colours of charts and page: one palette, safe for colour-blind readers, in a light and a dark tone.

The control is grey, and the treatments have the hues of Okabe and Ito in the order of the sweep, so that a
variant has the same colour in every chart, and on its card. These colours mean nothing else: parts of a run
(phases of time, parts of memory) have violets and browns, and a decision has words. A specification names no
colour: colours come from the configs below, so that one specification serves the page in both tones and the
pictures.
"""

from __future__ import annotations

from typing import Any

LIGHT = {
    "ink": "#1a1d21", "soft": "#5b626b", "line": "#dfe2e6", "grid": "#eceef1", "page": "#ffffff",
    "shade": "rgba(26, 29, 33, .22)",
    "variants": ["#6f7680", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9"],
    "parts": ["#c3c8cf", "#54459a", "#8a6642", "#a99fd8", "#dcc09a", "#4f3a26", "#7a6bbd"],
}  # fmt: skip
DARK = {
    "ink": "#e8eaed", "soft": "#a0a7b0", "line": "#3a4048", "grid": "#2a2f36", "page": "#15181c",
    "shade": "rgba(232, 234, 237, .3)",
    "variants": ["#9aa1ab", "#4ba3dd", "#f58a3c", "#2fc79b", "#e39cc4", "#e0b040", "#8fd0f5"],
    "parts": ["#4a515b", "#9d8df0", "#b98d5e", "#6a5fae", "#e0c49b", "#7d5f41", "#c3b8ff"],
}  # fmt: skip
PARTS = "ordinal"
"""Name of the range of colours for parts of a run; variants have the default one."""
FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"


def vega_config(tone: dict[str, Any], *, background: str | None = None) -> dict[str, Any]:
    """Return the Vega-Lite config of one tone. Without a background it is transparent."""
    return {
        "background": background,
        "font": FONT,
        "view": {"stroke": None},
        "range": {"category": tone["variants"], PARTS: tone["parts"]},
        "axis": {
            "labelColor": tone["soft"], "labelFontSize": 11, "labelFlush": True, "labelOverlap": True,
            "titleColor": tone["soft"], "titleFontSize": 11.5, "titleFontWeight": "normal", "titlePadding": 8,
            "gridColor": tone["grid"], "domainColor": tone["line"], "tickColor": tone["line"],
        },
        "axisY": {"domain": False, "ticks": False, "labelPadding": 6, "minExtent": 44},
        "header": {
            "labelColor": tone["ink"], "labelFontSize": 12.5, "labelFontWeight": 600, "labelAnchor": "start",
            "labelPadding": 4, "title": None,
        },
        "legend": {
            "orient": "top", "direction": "horizontal", "title": None, "labelColor": tone["ink"],
            "labelFontSize": 12, "labelLimit": 260, "symbolStrokeWidth": 3, "symbolSize": 120,
        },
        "title": {
            "color": tone["ink"], "fontSize": 13.5, "anchor": "start",
            "subtitleColor": tone["soft"], "subtitleFontSize": 11.5, "subtitlePadding": 5,
        },
        "rule": {"color": tone["soft"]},
        "text": {"color": tone["soft"], "fontSize": 11},
        "style": {
            "region": {"color": tone["line"], "opacity": 0.7},
            "reference": {"stroke": tone["soft"], "strokeWidth": 1},
            "hollow": {"fill": tone["page"]},
            "inside": {"color": tone["page"], "fontSize": 11.5, "fontWeight": 600},
            "edge": {"stroke": tone["page"]},
            "outline": {"color": tone["page"], "stroke": tone["soft"]},
            "mark": {"color": tone["ink"]},
        },
    }  # fmt: skip
