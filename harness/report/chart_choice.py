"""Choice of a chart by its name, in the theme of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.core.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from harness.report.charts.panels import Panel


def choose_chart(name: str, charts: Mapping[str, Panel]) -> Panel:
    """Return a chart in the light theme. Raises UserError for a name that is not among the charts."""
    if name not in charts:
        raise UserError(f"figure={name}: no such chart; {did_you_mean(name, charts)}")
    return in_theme(charts[name])


def in_theme(chart: Panel) -> Panel:
    """Return a chart in the light theme."""
    from harness.report.charts import theme

    return chart.properties(config=theme.vega_config(theme.LIGHT, background=theme.LIGHT["page"]))
