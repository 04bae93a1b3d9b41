"""The verdict in words: terminal and Markdown."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.report.terminal import print_comparison
from tests.report.example import VERDICT, comparison


def printed(width: int, **names) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_comparison(comparison(**names), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


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
