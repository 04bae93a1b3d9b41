"""Table of plain text cells for page, terminal and Markdown, and ways to make it narrower."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.core.number_format import MISSING, plain_text

TEXT_COLUMNS = {
    "flags", "why", "method (df)", "decision", "detail", "problem", "schedule", "tuning", "tokenizer", "mix",
    "shared examples", "outcome", "base", "layout", "tags", "phase", "",
}  # fmt: skip
"""Columns of text among those to the right of the names."""


@dataclass(frozen=True)
class Table:
    """Table of formatted text that is not yet escaped for any medium."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    """Number of columns at the left that name a row."""

    def is_text_column(self, position: int) -> bool:
        """Return whether a column holds text, which is aligned left, and not numbers."""
        return position < self.left or self.columns[position] in TEXT_COLUMNS

    def __bool__(self) -> bool:
        return bool(self.rows)


def make_table(columns: Iterable[str], rows: Iterable[Iterable[str]], left: int = 1) -> Table:
    """Make a table from cells, each turned into one line of plain text."""
    cells = tuple(tuple(plain_text(cell) for cell in row) for row in rows)
    return Table(tuple(columns), cells, left)


def explain_constant_columns(content: Table) -> tuple[Table, str]:
    """Return the table without columns that are equal in all rows, and a line with their values."""
    if len(content.rows) < 2:
        return content, ""
    constant = {
        name: cells[0]
        for i, name in enumerate(content.columns)
        if i >= content.left and len(set(cells := [row[i] for row in content.rows])) == 1
    }
    phrases = [f"{name} {cell}" for name, cell in constant.items() if cell not in ("", MISSING)]
    line = f"The same in every row: {', '.join(phrases)}." if phrases else ""
    return drop_columns(content, tuple(constant)), line


def narrow_table(content: Table) -> tuple[Table, str]:
    """Like `explain_constant_columns`, but keep the whole table if only names would be left."""
    narrow, constant = explain_constant_columns(content)
    return (content, "") if len(narrow.columns) == content.left else (narrow, constant)


def drop_columns(content: Table, dropped: tuple[str, ...]) -> Table:
    """Return the table without the columns of these names."""
    positions = [i for i, name in enumerate(content.columns) if name not in dropped]
    rows = tuple(tuple(row[i] for i in positions) for row in content.rows)
    return Table(tuple(content.columns[i] for i in positions), rows, content.left)
