"""Files of a folder as people mean it: links followed, each file once, hidden ones left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

LEFTOVERS = (
    "*~", "#*#", "~$*", "*.swp", "*.swo", "*.bak", "*.orig", "*.tmp", "*.part", "*.crdownload", "*.crc",
    "Thumbs.db", "desktop.ini", "_SUCCESS", "_committed_*", "_started_*", "_metadata", "_common_metadata",
)  # fmt: skip
"""Names of files that editors, systems, browsers and other tools leave beside the data."""
LEFTOVER_FOLDERS = ("_temporary", "__MACOSX", "__pycache__", "lost+found")


@dataclass
class FolderFiles:
    """Files below a folder, and what was left out."""

    files: list[Path] = field(default_factory=list)
    """Files to read, sorted by path."""
    hidden: list[Path] = field(default_factory=list)
    """Files and folders whose name begins with a dot, such as .ipynb_checkpoints."""
    leftovers: list[Path] = field(default_factory=list)
    """Files and folders of editors, systems and other tools, such as backups and partial downloads."""
    repeats: list[Path] = field(default_factory=list)
    """Links to a file or a folder that is read already."""
    broken_links: list[Path] = field(default_factory=list)
    """Links that lead nowhere."""
    other_files: list[Path] = field(default_factory=list)
    """Files of another kind."""


def list_files(folder: Path, is_wanted: Callable[[Path], object] = bool) -> FolderFiles:
    """Return the files below a folder for which `is_wanted` is true. Linked folders are followed, after the
    others. Raises OSError for a folder that cannot be listed."""
    listing, real_folders, links = FolderFiles(), set[str](), [folder]
    paths: list[Path] = []
    while links:
        top = links.pop(0)
        for parent, folders, names in os.walk(top, onerror=_raise):
            real = os.path.realpath(parent)
            if real in real_folders:
                listing.repeats.append(Path(parent))
                folders.clear()
                continue
            real_folders.add(real)
            listing.hidden += [Path(parent, name) for name in sorted([*folders, *names]) if name[0] == "."]
            listing.leftovers += [Path(parent, name) for name in folders if name in LEFTOVER_FOLDERS]
            folders[:] = sorted(name for name in folders if name[0] != "." and name not in LEFTOVER_FOLDERS)
            folder_links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
            links += [Path(parent, name) for name in folder_links]
            folders[:] = [name for name in folders if name not in folder_links]
            paths += [Path(parent, name) for name in names if name[0] != "."]
    listing.leftovers = sorted([*listing.leftovers, *filter(is_leftover, paths)])
    paths = [path for path in paths if not is_leftover(path)]
    listing.other_files = sorted(path for path in paths if not is_wanted(path))
    _take_once(listing, [path for path in paths if is_wanted(path)])
    return listing


def is_leftover(path: Path) -> bool:
    """Return whether a file was left beside the data by an editor, a system or another tool."""
    return any(fnmatchcase(path.name, pattern) for pattern in LEFTOVERS)


def _take_once(listing: FolderFiles, paths: Iterable[Path]) -> None:
    """Distribute the paths over the listing. A file has precedence over links to it."""
    real_files = set[str]()
    for path in sorted(paths, key=lambda path: (path.is_symlink(), path)):
        real = os.path.realpath(path)
        if not os.path.exists(real):
            listing.broken_links.append(path)
        elif real in real_files:
            listing.repeats.append(path)
        elif os.path.isfile(real):  # not a pipe or a socket, which would block
            real_files.add(real)
            listing.files.append(path)
    listing.files.sort()


def _raise(error: OSError) -> None:
    raise error
