"""Files of the questions in experiments/questions: a YAML file each, its header, and the catalogue's rows.

The names are the options of Hydra's group `question`, whatever the folder of the socket.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import UserError

PACKAGE = Path(__file__).parents[2]
EXPERIMENTS = next(
    path for path in (PACKAGE / "experiments", PACKAGE.parent / "experiments") if path.is_dir()
)
"""Folder of the experiments: inside the installed package, beside the package in the repository."""
QUESTIONS = EXPERIMENTS / "questions"
GROUP = "question"
"""Hydra's group of the questions."""
_HEADER = re.compile(r"# @package _global_\n((?:#.*\n)+)")
_TITLE = re.compile(r"([A-Z]\d+)[a-z]? (.+)")


@dataclass(frozen=True)
class Question:
    """Header of a question's YAML file."""

    name: str
    socket: str
    """Folder of the file: the socket into which the question plugs."""
    row: str
    """Id of the catalogue's row that it answers."""
    title: str
    summary: str
    """Computation of the variant, in words or a formula."""
    source: str
    """Paper or repository that published it."""
    module: Path | None
    """Python file beside the YAML file; None if the config alone asks the question."""


@dataclass(frozen=True)
class CatalogueRow:
    """Row of the catalogue: a question that a public report, ladder or speed-run has put."""

    id: str
    title: str
    socket: str


@functools.cache
def question_files() -> dict[str, Path]:
    """Return the YAML file of each question by name. Raises UserError for a name that stands twice."""
    files: dict[str, Path] = {}
    for file in sorted(QUESTIONS.glob("*/*.yaml")):
        if file.stem in files:
            raise UserError(f"{file}: {files[file.stem]} has this name too. Rename one of the questions.")
        files[file.stem] = file
    return files


def read_questions() -> list[Question]:
    """Return every question, by socket and name. Raises UserError for a header that is not complete."""
    return [_read_question(file) for file in question_files().values()]


def _read_question(file: Path) -> Question:
    header = _HEADER.match(file.read_text(encoding="utf-8"))
    first, *lines = [line.lstrip("# ").rstrip() for line in header[1].splitlines()] if header else [""]
    title = _TITLE.fullmatch(first)
    summary, marker, source = " ".join(lines).partition("Source:")
    if not title or not summary or not marker:
        raise UserError(
            f"{file}: the header is not complete. Below `# @package _global_` write comments with the row "
            "and a title (`# R7 value residual`), what is computed, and `# Source: ...`."
        )
    module = file.with_suffix(".py")
    return Question(
        file.stem, file.parent.name, title[1], title[2], summary.strip(), source.strip(" ."),
        module if module.is_file() else None,
    )  # fmt: skip


def read_catalogue() -> list[CatalogueRow]:
    """Return the rows of the catalogue, in its order."""
    return [CatalogueRow(*row) for row in _read_yaml("catalogue.yaml")]


def read_not_askable() -> dict[str, str]:
    """Return why a row has no question, by its id."""
    return _read_yaml("not_askable.yaml") or {}


def _read_yaml(name: str):
    import yaml  # which names of questions do not need

    return yaml.load((QUESTIONS / name).read_text(encoding="utf-8"), yaml.CSafeLoader)
