"""Sections of a plan as a terminal shows them, and as text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from harness.core.number_format import plain_text
from harness.report.frames.saved_plan import PlanSection
from harness.report.tables.terminal import print_line, print_table
from harness.report.tables.text_table import narrow_table


def print_sections(sections: Sequence[PlanSection], console: Console, *, folded: bool = False) -> None:
    """Print the sections; folded ones only if `folded`."""
    for section in sections:
        if section.folded and not folded:
            continue
        content, constant = (section.content, "") if section.folded else narrow_table(section.content)
        print_table(console, section.title, content)
        if section.lines and not content:
            console.print(Text(f"\n{section.title}", style="bold"))
        for line in (constant, *section.lines):
            print_line(console, plain_text(line))
