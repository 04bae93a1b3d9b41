"""Layout of a table for a screen: names stay whole, text wraps, and columns without room continue below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells
from rich.text import Text

from harness.report.tables.text_table import Table

PADDING = 2
"""Blanks of a column: one at each side."""
MIN_TEXT, NARROW_TEXT, MIN_NAME = 24, 12, 8
"""Narrowest column of text in the body of a table, the same beside names that leave no room for it, and
narrowest column of names on a screen that has no room for them."""


@dataclass(frozen=True)
class TableBlock:
    """Columns that stand side by side, the names at the left, and the width of each."""

    content: Table
    widths: tuple[int, ...]


def table_lines(content: Table, width: int | None) -> list[Text]:
    """Return the lines of a table for a screen of `width` columns (None: as wide as the table needs).

    Every cell is shown: columns without room continue below, beside the names of their rows.
    """
    lines: list[Text] = []
    for block in fit_table(content, width):
        lines += [Text("")] if lines else []
        lines += [Text(line, style="dim") for line in _row_lines(block, block.content.columns)]
        lines += [Text(line) for row in block.content.rows for line in _row_lines(block, row)]
    return lines


def fit_table(content: Table, width: int | None) -> list[TableBlock]:
    """Divide a table into blocks that fit into `width` columns; None is a width without a limit."""
    widths = [_natural_width(content, i) for i in range(len(content.columns))]
    if width is None:
        return [TableBlock(content, tuple(widths))]
    names, values = range(content.left), range(content.left, len(widths))
    room_of_text = width - sum(widths[i] + PADDING for i in names) - PADDING
    min_text = MIN_TEXT if room_of_text >= MIN_TEXT else NARROW_TEXT
    floors = [_floor(content, i, min_text) for i in range(len(widths))]
    room = width - PADDING * content.left - (max((floors[i] + PADDING for i in values), default=0))
    floors[: content.left] = _shrink([widths[i] for i in names], [MIN_NAME] * len(names), room)
    blocks = _divided([floors[i] for i in names], {i: floors[i] for i in values}, width)
    return [_block(content, [*names, *block], widths, floors, width) for block in blocks]


def _divided(names: Sequence[int], floors: dict[int, int], width: int) -> list[list[int]]:
    """Distribute the columns over as few blocks as they need, in their order."""
    blocks: list[list[int]] = [[]]
    used = start = sum(name + PADDING for name in names)
    for position, floor in floors.items():
        if blocks[-1] and used + floor + PADDING > width:
            blocks.append([])
            used = start
        blocks[-1].append(position)
        used += floor + PADDING
    return blocks


def _block(
    content: Table, positions: Sequence[int], widths: Sequence[int], floors: Sequence[int], width: int
) -> TableBlock:
    """Make the block of some columns, each as wide as it wants to be and the screen allows."""
    columns = tuple(content.columns[i] for i in positions)
    rows = tuple(tuple(row[i] for i in positions) for row in content.rows)
    room = width - PADDING * len(positions)
    sizes = _shrink([widths[i] for i in positions], [floors[i] for i in positions], room)
    return TableBlock(Table(columns, rows, content.left), tuple(sizes))


def _shrink(widths: Sequence[int], floors: Sequence[int], room: int) -> list[int]:
    """Make the widest columns narrower, none below its floor, until all fit into `room`."""
    sizes = [*widths]
    while sum(sizes) > room and (wide := [i for i, size in enumerate(sizes) if size > floors[i]]):
        sizes[max(wide, key=lambda i: sizes[i])] -= 1
    return sizes


def _natural_width(content: Table, position: int) -> int:
    return max(cell_len(content.columns[position]), _widest_cell(content, position))


def _floor(content: Table, position: int, min_text: int) -> int:
    """Return the narrowest width: a heading breaks between words, and so does a text that is no name."""
    words = max(map(cell_len, content.columns[position].split()), default=0)
    widest = _widest_cell(content, position)
    is_text = position >= content.left and content.is_text_column(position)
    return max(words, min(widest, min_text) if is_text else widest)


def _widest_cell(content: Table, position: int) -> int:
    return max((cell_len(row[position]) for row in content.rows), default=0)


def _row_lines(block: TableBlock, cells: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a row, as many as its highest cell needs."""
    columns = [[*_wrapped(cell, width)] for cell, width in zip(cells, block.widths, strict=True)]
    for line in range(max(map(len, columns))):
        parts = [lines[line] if line < len(lines) else "" for lines in columns]
        yield " ".join(_aligned(block, i, part) for i, part in enumerate(parts)).rstrip()


def _aligned(block: TableBlock, position: int, text: str) -> str:
    blanks = " " * (block.widths[position] - cell_len(text))
    return f" {text}{blanks}" if block.content.is_text_column(position) else f" {blanks}{text}"


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Yield the lines of a cell, broken between words, and inside a word that is longer than a line."""
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if cell_len(joined) <= width:
            line = joined
            continue
        if line:
            yield line
        *pieces, line = chop_cells(word, width)
        yield from pieces
    yield line
