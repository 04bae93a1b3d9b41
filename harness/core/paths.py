"""Paths and URLs: what is written lies on a mounted file system; what is only read may lie elsewhere."""

from __future__ import annotations

import re
from typing import Any

from harness.core.errors import UserError

_PROTOCOL = re.compile(r"([a-z][a-z0-9+.-]*)(?:://|::)", re.IGNORECASE)
_FILE = re.compile(r"(?:file|local)://", re.IGNORECASE)


def is_remote(place: object) -> bool:
    """Whether it is behind a protocol, as `s3://bucket/runs` and `zip::https://host/runs.zip`; a `file://` is
    a path."""
    return bool(_PROTOCOL.match(str(place)) and not _FILE.match(str(place)))


def local_path(place: object, way_out: str, key: str = "") -> str:
    """A path as it is, and that of `file:///path`. Raises UserError for what is remote, which would pass for
    a folder named `s3:` otherwise. `key`: what stands before it where a user wrote it, such as `runs=`."""
    if is_remote(place):
        protocol = str(place).partition(":")[0]
        raise UserError(f"{key}{place}: a path is needed here, and {protocol} is no mounted one; {way_out}")
    return _FILE.sub("", str(place), count=1)


def runs_path(runs: str) -> str:
    """The folder of `runs=` as a path. Raises UserError where it cannot hold run directories."""
    way_out = f"mount it, or train to a path and copy that (`harness compare {runs}/SWEEP` reads there)"
    return local_path(runs, way_out, "runs=")


def resolve_paths(content: dict[Any, Any]) -> None:
    """Write each path of a config as one. Raises UserError for what is remote."""
    data, finetune = content["data"], content["finetune"]
    sources = {f"data.sources.{name}.path": (node, "path") for name, node in data["sources"].items()}
    keys = {**sources, "data.tokenizer": (data, "tokenizer"), "finetune.parent": (finetune, "parent")}
    content["runs"] = runs_path(content["runs"])
    way_out = "mount it, or copy it to where every worker sees it"
    for key, (node, name) in keys.items():
        if isinstance(node.get(name), str):
            node[name] = local_path(node[name], way_out, f"{key}=")
