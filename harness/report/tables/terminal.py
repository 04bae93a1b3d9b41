"""The verdict in a terminal, its sentence first; without colours if the output is not a terminal."""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.text import Text

from harness.compare.results.comparison import Comparison
from harness.compare.results.verdict_types import Decision, Ladder
from harness.compare.verdict.flags import BLOCKING
from harness.core.number_format import plain_text
from harness.report.tables import comparison_tables as tables
from harness.report.tables import wording
from harness.report.tables.fit_width import table_lines
from harness.report.tables.text_table import Table, drop_columns, explain_constant_columns

STYLES = {
    Decision.B_BETTER: "bold green",
    Decision.A_BETTER: "bold red",
    Decision.EQUIVALENT: "bold cyan",
    Decision.INCONCLUSIVE: "bold yellow",
    Decision.INVALID: "bold magenta",
}
EXPLAINED_BELOW = ("flags",)
"""Columns of a table whose content the section on flags has, with the places."""


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the verdict, fairness, each comparison by scale and over the ladder, and the meaning of flags."""
    console.print()
    for sentence in wording.verdict_lines(comparison):
        for line in Text(sentence, style="bold").wrap(console, console.width):
            line.rstrip()
            console.print(line)
    print_line(console, wording.k_meaning(comparison))
    fairness, constant = explain_constant_columns(drop_columns(tables.fairness(comparison), EXPLAINED_BELOW))
    mixed = "mix" in fairness.columns
    fairness, lines = tables.split_phrase_columns(fairness)
    print_table(console, "Fairness: what each variant was given", fairness)
    for line in (*lines, constant):
        print_line(console, line)
    print_table(console, "Learning rates that were tried (* the lowest loss)", tables.tuning(comparison))
    for ladder in comparison.ladder:
        _print_ladder(console, comparison, ladder)
    if lines := wording.power_lines(comparison):
        console.print(Text("\nPower at the noise of these pairs", style="bold"))
        for line in lines:
            print_line(console, line)
    print_table(console, tables.UNPAIRED_TITLE, tables.unpaired_runs(comparison))
    if mixed:
        print_table(console, "Domains", tables.domains(comparison))
    print_table(console, "Experts over the last tenth of each run", tables.experts(comparison))
    print_table(console, tables.OWN_METRICS_TITLE, tables.own_metrics(comparison))
    print_table(console, tables.samples_title(comparison), tables.samples(comparison))
    _print_forgetting(console, comparison)
    print_table(console, "Gate", tables.gate(comparison))
    print_table(console, "Diverged runs", tables.divergence(comparison))
    print_table(console, "Deviations from the recorded rule", tables.deviations(comparison))
    _print_flags(console, comparison)
    for note in [note for note in comparison.notes if note not in comparison.verdict]:
        print_line(console, plain_text(note))


def _print_ladder(console: Console, comparison: Comparison, ladder: Ladder) -> None:
    suffix = " (positive control: known to be worse)" if ladder.positive_control else ""
    rungs = drop_columns(tables.rungs(comparison, ladder), EXPLAINED_BELOW)
    content, constant = explain_constant_columns(rungs)
    print_table(console, f"{ladder.variant} against {ladder.control}{suffix}", content)
    print_line(console, constant)
    print_line(console, wording.largest_scale_line(comparison, ladder))
    decision = Text(wording.decision_line(ladder))
    decision.highlight_words([ladder.decision.value], style=STYLES[ladder.decision])
    print_line(console, decision)
    if ladder.settle:
        print_line(console, f"What would settle it: {plain_text(ladder.settle)}.")
    for line in (*wording.bet_lines(ladder), *wording.ladder_lines(ladder)):
        print_line(console, line)


def _print_forgetting(console: Console, comparison: Comparison) -> None:
    """Print one table per scale, which its title names."""
    content = tables.forgetting(comparison)
    for scale in dict.fromkeys(row.scale for row in comparison.forgetting):
        rows = tuple(row for row in content.rows if row[0] == scale)
        n = ", ".join(dict.fromkeys(row[content.columns.index("n")] for row in rows))
        title = f"Forgetting at {scale}: loss on domains that are not trained on, end minus start (n {n})"
        print_table(console, title, drop_columns(Table(content.columns, rows, 3), ("scale", "n")))


def print_line(console: Console, line: str | Text) -> None:
    """Print text indented by one column. It is wrapped here because rich pads each line with blanks."""
    if not line:
        return
    text = line if isinstance(line, Text) else Text(line)
    for part in text.wrap(console, console.width - 1):
        part.rstrip()
        console.print(Text(" ").append_text(part))


def _print_flags(console: Console, comparison: Comparison) -> None:
    if not comparison.flags:
        return
    console.print(Text("\nFlags", style="bold"))
    for flag, weight, where, meaning in tables.flags(comparison).rows:
        style = "magenta" if flag in BLOCKING else "yellow"
        line = Text(flag, style=style).append(f" ({weight}; {where}): {meaning}.", style="default")
        print_line(console, line)


def table_width(console: Console) -> int | None:
    """Return the width for tables: that of the screen, and without a limit (None) in a pipe or a file,
    unless COLUMNS is set."""
    is_pipe = console.file is sys.stdout and not console.is_terminal
    return None if is_pipe and "COLUMNS" not in os.environ else console.width


def print_table(console: Console, title: str, content: Table) -> None:
    """Print a titled table; nothing if it has no rows."""
    if not content:
        return
    console.print(Text(f"\n{plain_text(title)}", style="bold"))
    for line in table_lines(content, table_width(console)):
        console.print(line, soft_wrap=True)
