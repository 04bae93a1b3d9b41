"""Files of the named choices: the groups of conf/ and of a user's folders, each with the file of each option.

Nothing here imports Hydra, which composes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.config.variants.question_files import GROUP, question_files

PACKAGE = Path(__file__).parents[2]
CONF_FOLDER = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())
"""Folder of the named choices: inside the installed package, beside the package in the repository."""
OWN_FOLDER = Path("conf")
"""Folder in which users keep their own choices."""
_SEARCHPATH = re.compile(r"\+?hydra\.searchpath=\[?(.*?)\]?")


def search_folders(words: Iterable[str]) -> list[Path]:
    """Return the folders of choices: that of the harness, those of `hydra.searchpath` among the words of a
    command, and `conf` in the current folder."""
    folders = [CONF_FOLDER]
    own_folders = [] if OWN_FOLDER.resolve() == CONF_FOLDER.resolve() else [OWN_FOLDER]
    for word in words:
        if match := _SEARCHPATH.fullmatch(word.strip("'\"")):
            folders += [Path(place.strip(" '\"").removeprefix("file://")) for place in match[1].split(",")]
    return [*dict.fromkeys(folder for folder in (*folders, *own_folders) if folder.is_dir())]


def option_files(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Return the file of each option by group and name, those of later folders last. Folders within a group
    are left out."""
    groups: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for group in sorted(folder.iterdir()):
            if group.is_dir() and not group.name.startswith(("_", ".")):
                options = groups.setdefault(group.name, {})
                options |= {file.stem: file for file in sorted(group.glob("*.yaml"))}
    questions = groups.get(GROUP, {})
    return {**groups, GROUP: dict(sorted((question_files() | questions).items()))}


def group_options(group: str, words: Iterable[str]) -> list[str]:
    """Return the names of the options of a group, own ones among them; none if there is no such group."""
    return sorted(option_files(search_folders(words)).get(group, ()))
