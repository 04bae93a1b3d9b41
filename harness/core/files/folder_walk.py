"""Files of a folder as people mean it: links followed, each file once, hidden ones left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class FolderFiles:
    """Files below a folder, and what was left out."""

    files: list[Path] = field(default_factory=list)
    """Files to read, sorted by path."""
    hidden: list[Path] = field(default_factory=list)
    """Files and folders whose name begins with a dot, such as .ipynb_checkpoints."""
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
            folders[:] = sorted(name for name in folders if name[0] != ".")
            folder_links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
            links += [Path(parent, name) for name in folder_links]
            folders[:] = [name for name in folders if name not in folder_links]
            paths += [Path(parent, name) for name in names if name[0] != "."]
    listing.other_files = sorted(path for path in paths if not is_wanted(path))
    _take_once(listing, [path for path in paths if is_wanted(path)])
    return listing


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
