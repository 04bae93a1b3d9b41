"""The report of unequal blocks: every run has its curve, in its own unit; only pairs have a verdict."""

from __future__ import annotations

import pytest
from rich.console import Console

from harness.compare import compare
from harness.report.charts import panels
from harness.report.frames.sweep_frames import read_frames
from harness.report.page.render import render_page
from harness.report.tables import comparison_tables as tables
from harness.report.tables.markdown import markdown
from harness.report.tables.terminal import print_comparison
from tests.compare.unequal import PLACED, UNIT, unequal


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return unequal(tmp_path_factory.mktemp("roster") / "sweep", with_steps=True)


@pytest.fixture(scope="module")
def told(sweep):
    return compare(sweep)


def test_runs_without_a_sibling_are_listed_with_their_units(told):
    rows = tables.unpaired_runs(told).rows
    assert [row[:2] for row in rows] == [("image", "dit"), ("6t", "mha"), ("10t", "mha")]
    outcome = tables.unpaired_runs(told).columns.index("outcome")
    assert rows[0][outcome].endswith(f" {UNIT}")
    assert rows[1][outcome].replace(".", "").isdigit()


def test_curves_are_drawn_unit_by_unit(sweep, told):
    content = read_frames(sweep, told)
    assert (content.scales, content.other_scales) == (["1t", "1p5t", "6t", "10t"], ["image"])
    assert "digits" not in str(content.evals)
    drawn = panels.panel_specs(told, content)
    text, images = str(drawn["curves"]), str(drawn["others"])
    assert "training loss (nats a token)" in text
    assert UNIT not in text
    assert f"training loss ({UNIT})" in images
    curves = {line.split(",")[0] for line in drawn["curves"]["data"]["values"].splitlines()[1:]}
    assert curves == {"1t", "1p5t", "6t", "10t"}


def test_page_terminal_and_markdown_say_who_decides_nothing(sweep, told):
    page = render_page(told, read_frames(sweep, told))
    console = Console(record=True, width=110, force_terminal=False)
    print_comparison(told, console)
    for text in (page, " ".join(console.export_text().split()), markdown(told)):
        assert tables.UNPAIRED_TITLE in text
        assert "one seed: the difference cannot be told apart from seed noise" in " ".join(text.split())
        assert "hybrid against mha" in text
        assert "dit against mha" not in text
    assert 'id="chart-others"' in page


def test_an_ordinary_sweep_lists_nobody(told, sweep):
    from tests.report.example import comparison

    assert not tables.unpaired_runs(comparison())
    assert len(told.runs) == len(PLACED)
