"""The verdict in a terminal, its sentence first; without colours if the output is not a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from harness.compare.results.comparison import Comparison
from harness.compare.results.verdict_types import Decision, Ladder
from harness.compare.verdict.flags import BLOCKING
from harness.core.number_format import plain_text
from harness.report.tables import comparison_tables as tables
from harness.report.tables import wording
from harness.report.tables.text_table import Table, drop_columns, explain_constant_columns

STYLES = {
    Decision.B_BETTER: "bold green",
    Decision.A_BETTER: "bold red",
    Decision.EQUIVALENT: "bold cyan",
    Decision.INCONCLUSIVE: "bold yellow",
    Decision.INVALID: "bold magenta",
}
NARROW, WIDE = 100, 130
"""Widths of the screen from which the method, and the flags, fit into their table."""


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the verdict, fairness, each comparison by scale and over the ladder, and the meaning of flags."""
    console.print()
    for sentence in wording.verdict_sentences(comparison.verdict):
        console.print(Text(sentence, style="bold"))
    fairness, constant = explain_constant_columns(tables.fairness(comparison))
    if console.width < NARROW:
        # Flags are listed and explained at the end, rates in a table of their own.
        dropped = ("flags", "tuning") if tables.tuning(comparison).rows else ("flags",)
        fairness = drop_columns(fairness, dropped)
    mixed = "mix" in fairness.columns
    fairness, lines = tables.split_phrase_columns(fairness)
    print_table(console, "Fairness: what each variant was given", fairness)
    for line in (*lines, constant):
        print_line(console, line)
    print_table(console, "Learning rates that were tried (* the lowest loss)", tables.tuning(comparison))
    for ladder in comparison.ladder:
        _print_ladder(console, comparison, ladder)
    print_table(console, tables.UNPAIRED_TITLE, drop_columns(tables.unpaired_runs(comparison), ("problem",)))
    if mixed:
        print_table(console, "Domains", tables.domains(comparison))
    print_table(console, "Experts over the last tenth of each run", tables.experts(comparison))
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
    dropped = ("decision", "flags", "method (df)")
    dropped = dropped[: 3 if console.width < NARROW else 2 if console.width < WIDE else 1]
    content = tables.rungs(comparison, ladder)
    print_table(console, f"{ladder.variant} against {ladder.control}{suffix}", drop_columns(content, dropped))
    if "method (df)" in dropped:
        methods = dict.fromkeys(row[content.columns.index("method (df)")] for row in content.rows)
        print_line(console, f"Method (df): {', '.join(methods)}.")
    print_line(console, f"Ladder: k = {wording.format_multiplier(ladder.k)} ({wording.pooled_text(ladder)}).")
    for line in wording.ladder_lines(ladder):
        print_line(console, line)
    decision = Text(ladder.decision.value, style=STYLES[ladder.decision])
    print_line(console, decision.append(f": {plain_text(ladder.reason)}", style="default"))
    if ladder.settle:
        print_line(console, f"What would settle it: {plain_text(ladder.settle)}")


def _print_forgetting(console: Console, comparison: Comparison) -> None:
    """Print one table per scale, so that two intervals fit beside each other."""
    content = tables.forgetting(comparison)
    dropped = ("scale", "n", "start", "end") if console.width < NARROW else ("scale",)
    for scale in dict.fromkeys(row.scale for row in comparison.forgetting):
        rows = tuple(row for row in content.rows if row[0] == scale)
        n = ", ".join(dict.fromkeys(row[content.columns.index("n")] for row in rows))
        title = f"Forgetting at {scale}: loss on domains that are not trained on, end minus start (n {n})"
        print_table(console, title, drop_columns(Table(content.columns, rows, 3), dropped))


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


def print_table(console: Console, title: str, content: Table) -> None:
    """Print a titled table; nothing if it has no rows."""
    if not content:
        return
    console.print(Text(f"\n{plain_text(title)}", style="bold"))
    rich_table = RichTable(box=None, padding=(0, 1), header_style="dim", pad_edge=True)
    for position, column in enumerate(content.columns):
        side = "left" if content.is_text_column(position) else "right"
        rich_table.add_column(Text(column), justify=side, no_wrap="[" in column)
    for row in content.rows:
        rich_table.add_row(*[Text(cell) for cell in row])
    console.print(rich_table)
