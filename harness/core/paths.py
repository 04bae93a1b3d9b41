"""Paths and URLs. Written files need a mounted file system; files that are only read may be remote."""

from __future__ import annotations

import re
from typing import Any

from harness.core.errors import UserError

_PROTOCOL = re.compile(r"([a-z][a-z0-9+.-]*)(?:://|::)", re.IGNORECASE)
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


def runs_path(runs: str) -> str:
    """Return the folder of `runs=` as a path. Raises UserError if it is remote."""
    way_out = f"mount it, or train to a path and copy that (`harness compare {runs}/SWEEP` reads there)"
    return local_path(runs, way_out, "runs=")


def resolve_paths(content: dict[Any, Any]) -> None:
    """Replace each `file://` URL of a config by its path, in place. Raises UserError for a remote one."""
    data, finetune = content["data"], content["finetune"]
    sources = {f"data.sources.{name}.path": (node, "path") for name, node in data["sources"].items()}
    keys = {**sources, "data.tokenizer": (data, "tokenizer"), "finetune.parent": (finetune, "parent")}
    content["runs"] = runs_path(content["runs"])
    way_out = "mount it, or copy it to where every worker sees it"
    for key, (node, name) in keys.items():
        if isinstance(node.get(name), str):
            node[name] = local_path(node[name], way_out, f"{key}=")
