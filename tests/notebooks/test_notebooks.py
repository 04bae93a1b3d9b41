"""The notebooks of docs/notebooks: script and notebook are one, and every output is what the cell shows."""

from __future__ import annotations

import pytest

from tests.notebooks.execute import FOLDER, NAMES, cells, execute, read_source, read_stored, shown


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_has_the_cells_of_its_script(name):
    assert cells(read_stored(name)) == cells(read_source(name))


def test_every_notebook_has_a_script():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {*NAMES}
    assert len(NAMES) == 4


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_what_it_shows_here(name, tmp_path):
    """`python -m tests.notebooks` writes the outputs again."""
    assert shown(execute(name, tmp_path)) == shown(read_stored(name))
