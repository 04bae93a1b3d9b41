"""Every cell of a table is shown, whatever the width of the screen and the length of the names."""

from __future__ import annotations

import io
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

from harness.report.tables.fit_width import fit_table, table_lines
from harness.report.tables.terminal import print_table, table_width
from harness.report.tables.text_table import Table, make_table

LONG = "1p5t_" + "a" * 290
NAMES = ("10t/mha", "1p5t/delta_hybrid", "größe_中文", LONG)


def table(*names: str) -> Table:
    columns = ("run", "step s [low, high]", "MFU", "days [low, high]", "GWh", "detail")
    rows = [
        (name, f"1.8{i} [1.40, 2.3{i}]", f"0.2{i}", f"14.{i} [11.3, 19.3]", f"{i}.1", f"won {i} of 4 " * 5)
        for i, name in enumerate(names)
    ]
    return make_table(columns, rows)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("names", [NAMES[:2], NAMES])
def test_nothing_is_cut_and_no_line_is_wider_than_the_screen(width, names):
    content = table(*names)
    lines = [line.plain for line in table_lines(content, width)]
    assert max(map(cell_len, lines)) <= width
    assert "…" not in "".join(lines)
    letters = "".join(lines).replace(" ", "")
    words = {word for row in (content.columns, *content.rows) for cell in row for word in cell.split()}
    for word in words - {LONG}:
        assert word in " ".join(lines).split() or word in letters
    if LONG in names:
        assert letters.count("a") >= LONG.count("a")


@pytest.mark.parametrize("width", [60, 80, 200, None])
def test_a_name_that_the_screen_holds_stays_on_one_line(width):
    lines = [line.plain for line in table_lines(table(*NAMES[:3]), width)]
    for name in NAMES[:3]:
        assert [line for line in lines if line.startswith(f" {name} ")]


def test_columns_without_room_continue_beside_the_names():
    blocks = fit_table(table("10t/mha"), 60)
    assert [block.content.columns[0] for block in blocks] == ["run"] * len(blocks)
    shown = [column for block in blocks for column in block.content.columns[1:]]
    assert shown == [*table("10t/mha").columns[1:]]
    assert len(blocks) > 1


def test_text_wraps_before_a_column_moves_below():
    content = make_table(("criterion", "value", "detail"), [("speed", "0.013", "step time " * 12)])
    (block,) = fit_table(content, 80)
    assert sum(block.widths) + 2 * 3 <= 80
    assert len(table_lines(content, 80)) == 1 + 2


def test_a_pipe_is_as_wide_as_the_table_and_columns_sets_a_width(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    content = table(*NAMES)
    assert table_width(Console()) is None
    print_table(Console(), "Runs", content)
    assert any(LONG in line and "won 3 of 4" in line for line in capsys.readouterr().out.splitlines())
    monkeypatch.setenv("COLUMNS", "60")
    print_table(Console(), "Runs", content)
    assert max(map(cell_len, capsys.readouterr().out.splitlines())) <= 60


def test_a_terminal_has_its_own_width(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert table_width(Console(width=72)) == 72
    assert table_width(Console(file=io.StringIO(), width=72)) == 72


def test_a_table_without_columns_beside_the_names_is_printed():
    assert [line.plain for line in table_lines(make_table(("run",), [("a",), ("b",)]), 80)] == [
        " run", " a", " b",
    ]  # fmt: skip
