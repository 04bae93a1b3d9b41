"""HTML of a notebook's output: paragraphs and tables without a style of their own."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from harness.core.number_format import plain_text
from harness.report.tables.text_table import Table


def html_paragraphs(lines: Iterable[str], *, bold: bool = False) -> str:
    """Return a paragraph for each line."""
    texts = (f"<b>{_escape(line)}</b>" if bold else _escape(line) for line in lines)
    return "".join(f"<p>{text}</p>" for text in texts)


def html_list(lines: Iterable[str]) -> str:
    """Return a list with an item for each line."""
    items = "".join(f"<li>{_escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>"


def html_table(content: Table) -> str:
    """Return a table, or '' without rows. Text is aligned left, numbers right."""
    if not content:
        return ""
    head = "".join(_cell("th", content, i, cell) for i, cell in enumerate(content.columns))
    rows = ("".join(_cell("td", content, i, cell) for i, cell in enumerate(row)) for row in content.rows)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(tag: str, content: Table, position: int, cell: str) -> str:
    side = "left" if content.is_text_column(position) else "right"
    return f'<{tag} style="text-align: {side}">{_escape(cell)}</{tag}>'


def _escape(text: str) -> str:
    """Return one line of plain text, escaped. The page's own `escape_text` comes with its charts."""
    return escape(plain_text(text))
