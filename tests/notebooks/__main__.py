"""Execute notebooks and write their outputs: `python -m tests.notebooks [NAME ...]`."""

import sys
import tempfile
from pathlib import Path

import jupytext

from tests.notebooks.execute import FOLDER, NAMES, execute


def main() -> None:
    """Write each notebook that is named, or all."""
    for name in sys.argv[1:] or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(name, Path(folder))
        jupytext.write(notebook, FOLDER / f"{name}.ipynb")
        print(FOLDER / f"{name}.ipynb")


if __name__ == "__main__":
    main()
