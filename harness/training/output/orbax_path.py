"""Paths that Orbax can take: a link with a plain name leads to a folder with special characters.

Orbax looks up parts of a checkpoint by glob patterns that begin with its path, and TensorStore parses paths
as URLs. In a folder such as `exp[1]` a save finds none of its own parts and leaves a checkpoint that cannot
be restored, without an error; beside `a*b` it would find those of `axb`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from pathlib import Path

from harness.core.errors import UserError
from harness.core.files.private_folder import private_folder

_SPECIAL = re.compile(r"[^\w./ @,=+~-]")


def orbax_path(path: Path) -> Path:
    """Return the absolute path of a checkpoint, through a link if its folder has special characters.

    Links have the same path in all processes of this user with the same TMPDIR, as Orbax requires of the
    processes of one run. Raises UserError if there is no folder for links.
    """
    path = path.absolute()
    folder = str(path.parent)
    if not _SPECIAL.search(folder):
        return path
    link = _link_folder(folder) / hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
    with contextlib.suppress(FileExistsError):  # its name is the hash of its target
        link.symlink_to(folder)
    return link / path.name


def _link_folder(target: str) -> Path:
    """Return this user's folder for links; create it if it is missing."""
    base = next((base for base in (tempfile.gettempdir(), "/tmp") if not _SPECIAL.search(base)), None)
    if base is None:
        raise UserError(f"{target}: {_reason(tempfile.gettempdir())} has special characters too. {_WAY_OUT}")
    try:
        return private_folder(base)
    except OSError as error:
        place = _reason(str(error.filename or base))
        raise UserError(f"{target}: {place} cannot be used ({error.strerror}). {_WAY_OUT}") from error


def _reason(folder: str) -> str:
    return f"checkpoints in a folder with special characters need a link in a temporary folder, but {folder}"


_WAY_OUT = "Rename the folder, or set TMPDIR to a folder of your own."
