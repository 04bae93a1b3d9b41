"""A table as plain text cells, for page, terminal and Markdown alike, and what may be left out of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.core.number_format import MISSING, plain_text

TEXT_COLUMNS = {
    "flags",
    "why",
    "method (df)",
    "decision",
    "detail",
    "problem",
    "schedule",
    "tuning",
    "tokenizer",
    "mix",
    "shared examples",
    "outcome",
    "base",
    "layout",
}


@dataclass(frozen=True)
class Table:
    """Cells are text, already formatted, not yet escaped for any medium."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    """So many columns from the left name a row."""

    def is_text_column(self, position: int) -> bool:
        """Whether a column holds words, to be read from the left, and not numbers."""
        return position < self.left or self.columns[position] in TEXT_COLUMNS

    def __bool__(self) -> bool:
        return bool(self.rows)


def make_table(columns: Iterable[str], rows: Iterable[Iterable[str]], left: int = 1) -> Table:
    cells = tuple(tuple(plain_text(cell) for cell in row) for row in rows)
    return Table(tuple(columns), cells, left)


def explain_constant_columns(content: Table) -> tuple[Table, str]:
    """The table without its constant columns beyond the names, and one line that says those once."""
    if len(content.rows) < 2:
        return content, ""
    constant = {
        name: cells[0]
        for i, name in enumerate(content.columns)
        if i >= content.left and len(set(cells := [row[i] for row in content.rows])) == 1
    }
    phrases = [f"{name} {cell}" for name, cell in constant.items() if cell not in ("", MISSING)]
    return drop_columns(
        content, tuple(constant)
    ), f"The same in every row: {', '.join(phrases)}." if phrases else ""


def narrow_table(content: Table) -> tuple[Table, str]:
    """The same, but the whole table where nothing but names would be left."""
    narrow, constant = explain_constant_columns(content)
    return (content, "") if len(narrow.columns) == content.left else (narrow, constant)


def drop_columns(content: Table, dropped: tuple[str, ...]) -> Table:
    """The table without some of its columns."""
    positions = [i for i, name in enumerate(content.columns) if name not in dropped]
    rows = tuple(tuple(row[i] for i in positions) for row in content.rows)
    return Table(tuple(content.columns[i] for i in positions), rows, content.left)
