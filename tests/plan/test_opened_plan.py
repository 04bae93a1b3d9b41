"""A plan opened in Python has the numbers of the plan, its charts, and what the terminal prints."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from harness.cli.plan_report import page_content
from harness.cli.views.plan import plan_sections
from harness.compare.results.to_json import to_json
from harness.core.errors import UserError
from harness.report.opened_plan import TEXT_WIDTH, OpenedPlan
from harness.report.tables.plan_sections import print_sections
from tests.plan.test_pictures import RUNS, configs_of, plan_of
from tests.report.conftest import HOSTILE
from tests.report.test_page import Reader

PLAN = plan_of()
SECTIONS = plan_sections(PLAN, ["One seed a scale."])


@pytest.fixture(scope="module")
def opened() -> OpenedPlan:
    content = to_json(PLAN) | {"page": page_content([], PLAN, configs_of(PLAN), SECTIONS)}
    return OpenedPlan(json.loads(json.dumps(content)))


def test_runs_have_the_numbers_of_the_plan(opened: OpenedPlan):
    assert opened.runs["name"].to_list() == [run.name for run in RUNS]
    assert opened.runs["variant"].to_list() == ["mha", "mha", "hybrid", "mha", "adaptive"]
    for row, run in zip(opened.runs.iter_rows(named=True), RUNS, strict=True):
        assert (row["chips"], row["devices"], row["verdict"]) == (run.chips, run.devices, run.verdict)
        if run.days is None:
            assert {row["days"], row["days_low"], row["memory"]} == {None}
        else:
            ends = (run.days.value, run.days.low, run.days.high)
            assert (row["days"], row["days_low"], row["days_high"]) == ends
            assert row["memory"] == sum(part.value for part in run.memory.values())


def test_it_shows_what_the_terminal_prints(opened: OpenedPlan):
    text = io.StringIO()
    print_sections(SECTIONS, Console(file=text, width=TEXT_WIDTH))
    assert repr(opened).splitlines() == [line.rstrip() for line in text.getvalue().strip("\n").splitlines()]


def test_a_notebook_gets_the_same_sections(opened: OpenedPlan):
    html = opened._repr_html_()
    for section in SECTIONS:
        if section.folded or not (section.content or section.lines):
            continue
        assert f"<b>{section.title}</b>" in html
    assert "6t/mha/seed0 fits nowhere: give more devices." in html
    assert "6t/mha" in Reader(html).texts["td"]


def test_figures_are_charts_by_name(opened: OpenedPlan):
    assert opened.figures == ("chips", "memory", "timeline")
    for name in opened.figures:
        assert opened.figure(name).to_dict()["config"]["range"]["category"]
    with pytest.raises(UserError, match="figure=memori: no such chart; did you mean 'memory'"):
        opened.figure("memori")


def test_names_do_nothing_in_a_notebook():
    name = HOSTILE.replace("/", "")
    hostile = plan_of(RUNS[:1], name=name)
    sections = plan_sections(hostile, [name])
    content = to_json(hostile) | {"page": page_content([], hostile, configs_of(hostile), sections)}
    assert "<img" not in OpenedPlan(content)._repr_html_()
