"""Writing of a new project from the files of `template/`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from string import Template

from harness.cli.new_project.text_file import UserText
from harness.core.errors import UserError

TEMPLATE = Path(__file__).with_name("template")
SUFFIXES = (".yaml", ".md", ".py-tpl")
"""Suffixes of its files. Python ends in -tpl, so that it is no module of the package."""


def write_project(folder: Path, text: UserText) -> list[Path]:
    """Write a project into a folder that is new or empty. Return its files, relative to the folder. Raises
    UserError."""
    _check_empty(folder)
    contents = _filled_template(text)
    try:
        for path, content in contents.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise _not_writable(folder, error) from error
    return sorted(contents)


def _check_empty(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file. Choose a new folder.")
    try:
        is_empty = not folder.exists() or not os.listdir(folder)
    except OSError as error:
        raise _not_writable(folder, error) from error
    if not is_empty:
        raise UserError(f"{folder} is not empty, and nothing in it is overwritten. Choose a new folder.")


def _not_writable(folder: Path, error: OSError) -> UserError:
    place = error.filename or folder
    return UserError(f"{place}: {error.strerror}. Choose a folder in which you can write.")


def _filled_template(text: UserText) -> dict[Path, str]:
    """Return the texts of the template's files by path, with the user's text in place. A string of JSON is
    one of YAML too."""
    values = {
        "path": json.dumps(text.path, ensure_ascii=False),
        "column": json.dumps(text.column, ensure_ascii=False),
        "holdout": text.holdout,
        "evaluation_tokens": text.evaluation_tokens,
    }
    files = (file for file in sorted(TEMPLATE.rglob("*")) if file.suffix in SUFFIXES)
    return {
        Path(str(file.relative_to(TEMPLATE)).removesuffix("-tpl")): Template(
            file.read_text(encoding="utf-8")
        ).substitute(values)
        for file in files
    }
