"""Execution of a notebook in an empty folder, and what of its outputs is the same each time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

from tests.cli.support import clean_env

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
SECONDS = 300
"""Seconds that a cell may take."""
CLOCK = re.compile(r"\d+:\d\d(?::\d\d)?")


def read_source(name: str) -> Any:
    """Read the percent script of a notebook."""
    return jupytext.read(FOLDER / f"{name}.py")


def read_stored(name: str) -> Any:
    """Read the notebook with its outputs, as it is shown."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def execute(name: str, folder: Path) -> Any:
    """Execute the script of a notebook in a folder. Returns the notebook with its outputs."""
    notebook = read_source(name)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}})
    client.execute(env=kernel_env())
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of each cell
    return notebook


def kernel_env() -> dict[str, str]:
    """Return the environment of a kernel: that of a user, without the devices that the tests simulate."""
    return {**clean_env(), "PYDEVD_DISABLE_FILE_VALIDATION": "1", "HOME": os.environ.get("HOME", "/")}


def cells(notebook: Any) -> list[tuple[str, str]]:
    """Return the kind and the source of each cell."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def shown(notebook: Any) -> list[list[str]]:
    """Return what each cell of code shows: text with times of the clock masked, and the kinds of pictures."""
    return [[*_texts(cell.outputs)] for cell in notebook.cells if cell.cell_type == "code"]


def _texts(outputs: list[Any]) -> Iterator[str]:
    for output in outputs:
        if output.output_type == "stream":
            yield f"{output.name}: {_masked(output.text)}"
        elif output.output_type == "error":
            yield f"error: {output.ename}: {output.evalue}"
        else:
            pictures = sorted(kind for kind in output.data if kind.startswith("image/"))
            yield ", ".join(pictures) or _masked(output.data.get("text/plain", ""))


def _masked(text: str) -> str:
    return CLOCK.sub("0:00", text)
