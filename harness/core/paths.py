"""Paths and URLs. Written files need a mounted file system; files that are only read may be remote."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

from harness.core.errors import UserError

_PATH_KEY = re.compile(r"data\.tokenizer|finetune\.parent")
"""Keys of a config that name a file or a folder, besides `runs`."""
_DATA_KEY = re.compile(r"data\.sources\..*\.(path|validation)|evaluation\.sets\..*\.path")
"""Keys of a config that name files or folders of data, which may lie behind a URL."""
OUTWARD_LINK = "it is a link that leads out of its folder"
_PROTOCOL = re.compile(r"([a-z][a-z0-9+.-]*)(?:://|::)", re.IGNORECASE)
MAX_NAME_BYTES = 100
"""Bytes of a folder name in UTF-8. Log files join two names, and file systems allow 255 bytes a file."""
_FILE = re.compile(r"(?:file|local)://", re.IGNORECASE)


def is_remote(place: object) -> bool:
    """Return whether this is a URL, such as `s3://bucket/runs` or `zip::https://...`; not for `file://`."""
    return bool(_PROTOCOL.match(str(place)) and not _FILE.match(str(place)))


def local_path(place: object, way_out: str, key: str = "") -> str:
    """Return a path or `file://` URL as a path. Raises UserError, with `way_out`, for a remote URL.

    `key` is the prefix that the user typed, such as `runs=`.
    """
    if is_remote(place):
        protocol = str(place).partition(":")[0]
        raise UserError(
            f"{key}{place}: this must be a path, but {protocol} is not a mounted file system; {way_out}"
        )
    return _FILE.sub("", str(place), count=1)


def check_folder_name(key: str, name: str) -> None:
    """Raise UserError for a value of `key` that cannot name a single folder, or that is too long for one."""
    size = len(name.encode(errors="surrogatepass"))
    if size > MAX_NAME_BYTES:
        raise UserError(
            f"{key}={ascii(name[:20])[1:-1]}... has {size} bytes, and at most {MAX_NAME_BYTES} are allowed. "
            "Choose a shorter name."
        )
    if not name.isprintable() or name != name.strip() or name[:1] in ("", ".") or {*name} & {*"/\\"}:
        raise UserError(
            f"{key}={name if name.isprintable() else ascii(name)} must name a folder: not empty, without "
            "'/', '\\' and control characters, without a leading dot, and without spaces at its ends."
        )


def within_folder(path: Path) -> Path:
    """Return the path of a file or folder that is read from a sweep. Raises FileNotFoundError if it is a link
    that leads out of its folder: a sweep of somebody else could show a private file that way."""
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(path.parent)):
        raise FileNotFoundError(errno.ENOENT, OUTWARD_LINK, str(path))
    return path


def file_name(text: str) -> str:
    """Return a text from a record as part of the name of one file: it cannot name another folder."""
    safe_text = re.sub(r"[/\\\x00-\x1f]", "_", text).encode(errors="replace")
    return safe_text[:MAX_NAME_BYTES].decode(errors="ignore")


def runs_path(runs: str) -> str:
    """Return the folder of `runs=` as a path. Raises UserError if it is remote."""
    way_out = f"mount it, or train to a path and copy that (`harness compare {runs}/SWEEP` reads there)"
    return local_path(runs, way_out, "runs=")


def resolve_paths(content: dict[Any, Any]) -> None:
    """Replace each `file://` URL of a config by its path, in place. Raises UserError for a remote one that
    is no data."""
    data, finetune = content["data"], content["finetune"]
    sources = {
        f"data.sources.{name}.{leaf}": (node, leaf)
        for name, node in data["sources"].items()
        for leaf in ("path", "validation")
    }
    sets = content["evaluation"]["sets"].items()
    sources |= {f"evaluation.sets.{name}.path": (node, "path") for name, node in sets}
    keys = {**sources, "data.tokenizer": (data, "tokenizer"), "finetune.parent": (finetune, "parent")}
    for key, (node, name) in {"runs": (content, "runs"), **keys}.items():
        if name in node:
            node[name] = resolve_path(key, node[name])


def resolve_path(key: str, value: Any) -> Any:
    """Return the value of a config's leaf; if it names a path, a `file://` URL as that path. Raises UserError
    if it names a remote one that is no data."""
    if key == "runs":
        return runs_path(value)
    if isinstance(value, str) and _DATA_KEY.fullmatch(key):
        return value if is_remote(value) else local_path(value, "")
    if isinstance(value, str) and _PATH_KEY.fullmatch(key):
        return local_path(value, "mount it, or copy it to where every worker sees it", f"{key}=")
    return value
