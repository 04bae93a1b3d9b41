"""The verdict in words: terminal and Markdown."""

from __future__ import annotations

import dataclasses
import io
import math
import re
import subprocess
import sys

import pytest
from rich.console import Console

from harness.compare.results.comparison import Comparison
from harness.compare.results.context_types import RunState
from harness.compare.stats.estimates import Multiplier
from harness.compare.stats.speed_up import TimingRatio, effective_speed_up
from harness.core import number_format
from harness.report.tables import wording
from harness.report.tables.markdown import markdown
from harness.report.tables.terminal import print_comparison
from tests.report.example import VERDICT, comparison


def shown(told: Comparison, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_comparison(told, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def printed(width: int, **names) -> str:
    return shown(comparison(**names), width)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_sentence_comes_first_and_every_line_fits(width):
    text = printed(width)
    assert " ".join(text.split()).startswith(VERDICT)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_intervals_stay_whole_in_a_narrow_terminal():
    text = printed(80)
    assert "-0.0033 [-0.0073, +0.0007]" in text
    assert "1.030 [0.990, 1.073]" in text


def test_nothing_but_text_reaches_what_is_no_terminal():
    text = printed(80, variants=("mha", "[bold]x[/]\x1b[31m", "short"))
    assert "\x1b" not in text
    assert "[bold]x[/]" in text


def test_one_seed_shows_no_interval():
    text = printed(100, n=1)
    assert "-0.0033 [" not in text
    assert "-0.0033" in text


def test_markdown_is_a_document_of_tables_in_which_names_do_nothing():
    name = "<b>|[x](http://example.com)@team"
    text = markdown(comparison(("mha", name, "short")))
    assert "<b>" not in text
    assert "[x](" not in text.replace("\\[x\\](", "")
    assert "@team" not in text
    for line in text.splitlines():
        if line.startswith("| scale | n |"):
            assert line.count("|") == 10
        if line.startswith("| xs |") and "ΔL" not in line:
            assert len(re.findall(r"(?<!\\)\|", line)) in (7, 10)


def test_markdown_says_the_verdict_first():
    said = VERDICT.replace("[", "\\[").replace("]", "\\]")
    assert markdown(comparison()).split("\n\n")[1] == f"**{said}**"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (None, "–"),
        (1.23456, "1.23"),
        (0.00321, "0.00321"),
        (2.5e-6, "2.50e-06"),
        (123.4, "123"),
    ],
)
def test_numbers_keep_their_digits(value, text):
    assert number_format.format_number(value) == text


def test_the_verdict_is_one_line_a_treatment():
    lines = ["b is worse than a (A_BETTER; k = 0.6).", "c cannot be judged against a: x: y. z (INVALID)."]
    assert wording.verdict_lines(comparison(verdict="\n".join(lines))) == lines


@pytest.mark.parametrize("width", [60, 80, 140])
def test_k_is_explained_once_and_stands_per_token_per_flop_and_per_second(width):
    told = comparison()
    rungs = [dataclasses.replace(rung, k=_per_flop(rung.k)) for rung in told.rungs]
    ladders = [
        dataclasses.replace(
            item, largest_scale=dataclasses.replace(item.largest_scale, k=_per_flop(item.largest_scale.k))
        )
        for item in told.ladder
        if item.largest_scale
    ]
    ladders[-1] = _timed(ladders[-1])
    told = dataclasses.replace(told, rungs=tuple(rungs), ladder=tuple(ladders))
    lines = shown(told, width)
    text = " ".join(lines.split())
    assert text.count("mha needs k times as many tokens for the same loss") == 1
    assert "k = 0.638 [0.613, 0.664] per token, 0.797 [0.766, 0.830] per FLOP" in text
    s = wording.format_multiplier(ladders[-1].largest_scale.speed_up)
    assert s.startswith("0.478 [")
    assert f"per FLOP; s = {s} per second (step time 1.333 [1.325, 1.342] times, 4 quads)." in text
    assert "not timed per second (gate=promote times each variant alone)" in text
    assert "1.288 [1.238, 1.341]" in text, "k per FLOP of hybrid at xs"
    assert max(map(len, lines.splitlines())) <= width
    assert "k = 0.638 [0.613, 0.664] per token, 0.797" in markdown(told).replace("\\", "")


def _timed(ladder):
    """The ladder of a treatment with steps a third longer."""
    ratio = TimingRatio(math.log(4 / 3), 0.002, 3.0, 4, 0.004)
    largest_scale = dataclasses.replace(
        ladder.largest_scale, step_time=ratio, speed_up=effective_speed_up(ladder.largest_scale.k, ratio)
    )
    return dataclasses.replace(ladder, largest_scale=largest_scale)


def _per_flop(k: Multiplier | None) -> Multiplier | None:
    """The multiplier of a treatment that needs four fifths of the FLOPs."""
    return k if k is None or k.k is None else dataclasses.replace(k, k_per_flop=k.k / 0.8)


def test_every_column_is_printed_on_every_screen():
    wide = set(printed(200).split())
    for width in (60, 80, 100):
        missing = wide - set(printed(width).split())
        assert not {word for word in missing if any(letter.isalnum() for letter in word)}


def test_problems_of_unpaired_runs_are_printed():
    lone = RunState("xl", "mha", 0, "failed", 7, 781, None, "out of memory", "xl/mha/seed0")
    told = comparison()
    assert "out of memory" in shown(dataclasses.replace(told, runs=(*told.runs, lone)), 80)


def test_a_verdict_in_the_terminal_loads_no_plots():
    code = "import sys, harness.report.tables.terminal, harness.report.tables.markdown; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"altair", "vl_convert", "jax", "scipy.stats"} & set(done.stdout.split())
