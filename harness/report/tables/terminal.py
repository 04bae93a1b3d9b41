"""The verdict in a terminal, the sentence first; plain where the output is no terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from harness.compare.results.comparison import Comparison
from harness.compare.results.verdict_types import Decision, Ladder
from harness.compare.verdict.flags import BLOCKING
from harness.core import number_format
from harness.report.tables import comparison as tables
from harness.report.tables import wording
from harness.report.tables.text_table import Table, split, without

STYLES = {
    Decision.B_BETTER: "bold green",
    Decision.A_BETTER: "bold red",
    Decision.EQUIVALENT: "bold cyan",
    Decision.INCONCLUSIVE: "bold yellow",
    Decision.INVALID: "bold magenta",
}
NARROW, WIDE = 100, 130
"""Columns of the screen from which on the method, and the flags, have room in their table."""


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Verdict, fairness, each comparison by scale and over the ladder, then what the flags mean."""
    console.print()
    for sentence in wording.sentences(comparison.verdict):
        console.print(Text(sentence, style="bold"))
    fairness, same = split(tables.fairness(comparison))
    if console.width < NARROW:
        # Flags are listed and explained at the end, rates in a table of their own.
        fairness = without(fairness, ("flags", "tuning") if tables.tuning(comparison).rows else ("flags",))
    mixed = "mix" in fairness.columns
    fairness, lines = tables.told(fairness)
    section(console, "Fairness: what each variant was given", fairness)
    for line in (*lines, same):
        say(console, line)
    section(console, "Learning rates that were tried (* the lowest loss)", tables.tuning(comparison))
    for ladder in comparison.ladder:
        _print_ladder(console, comparison, ladder)
    section(console, tables.ALONE, without(tables.alone(comparison), ("problem",)))
    if mixed:
        section(console, "Domains", tables.domains(comparison))
    section(console, "Experts over the last tenth of each run", tables.experts(comparison))
    section(console, tables.samples_title(comparison), tables.samples(comparison))
    _print_forgetting(console, comparison)
    section(console, "Gate", tables.gate(comparison))
    section(console, "Diverged runs", tables.divergence(comparison))
    section(console, "Deviations from the rule that was written down", tables.deviations(comparison))
    _print_flags(console, comparison)
    for note in [note for note in comparison.notes if note not in comparison.verdict]:
        say(console, number_format.plain_text(note))


def _print_ladder(console: Console, comparison: Comparison, ladder: Ladder) -> None:
    known = " (positive control: known to be worse)" if ladder.positive_control else ""
    dropped = ("decision", "flags", "method (df)")
    dropped = dropped[: 3 if console.width < NARROW else 2 if console.width < WIDE else 1]
    content = tables.rungs(comparison, ladder)
    section(console, f"{ladder.variant} against {ladder.control}{known}", without(content, dropped))
    if "method (df)" in dropped:
        methods = dict.fromkeys(row[content.columns.index("method (df)")] for row in content.rows)
        say(console, f"Method (df): {', '.join(methods)}.")
    say(console, f"Ladder: k = {wording.multiplier(ladder.k)} ({wording.pooled(ladder)}).")
    for line in wording.ladder_lines(ladder):
        say(console, line)
    decision = Text(ladder.decision.value, style=STYLES[ladder.decision])
    say(console, decision.append(f": {number_format.plain_text(ladder.reason)}", style="default"))
    if ladder.settle:
        say(console, f"What would settle it: {number_format.plain_text(ladder.settle)}")


def _print_forgetting(console: Console, comparison: Comparison) -> None:
    """One table a scale, so that two intervals fit beside each other."""
    content = tables.forgetting(comparison)
    dropped = ("scale", "n", "start", "end") if console.width < NARROW else ("scale",)
    for scale in dict.fromkeys(row.scale for row in comparison.forgetting):
        rows = tuple(row for row in content.rows if row[0] == scale)
        n = ", ".join(dict.fromkeys(row[content.columns.index("n")] for row in rows))
        title = f"Forgetting at {scale}: loss on what is not trained on, end minus start (n {n})"
        section(console, title, without(Table(content.columns, rows, 3), dropped))


def say(console: Console, line: str | Text) -> None:
    """Text set in by one column; wrapped here, since rich fills each line with blanks."""
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
        say(console, line)


def section(console: Console, title: str, content: Table) -> None:
    if not content:
        return
    console.print(Text(f"\n{number_format.plain_text(title)}", style="bold"))
    console.print(_dressed(content))


def _dressed(content: Table) -> RichTable:
    dressed = RichTable(box=None, padding=(0, 1), header_style="dim", pad_edge=True)
    for position, column in enumerate(content.columns):
        side = "left" if content.worded(position) else "right"
        dressed.add_column(Text(column), justify=side, no_wrap="[" in column)
    for row in content.rows:
        dressed.add_row(*[Text(cell) for cell in row])
    return dressed
