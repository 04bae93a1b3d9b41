"""Resolved config of a run as YAML, written by the launcher and read by the worker."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.config.renamed_keys import with_new_names
from harness.config.schema.run import Config, to_config
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.core.hashing import hash_json, to_plain

_CHECKSUM_PREFIX = "# sha256 of the lines above: "


def write_config(path: Path, config: Config) -> None:
    """Write YAML with a checksum in the last line: a flipped bit in a learning rate is still valid YAML."""
    text = "".join(_node_yaml(name, json.dumps(node)) for name, node in to_plain(config).items())
    atomic_files.write_text(path, f"{text}{_CHECKSUM_PREFIX}{_hash(text)}\n")


def checksum_ok(path: Path) -> bool:
    """Return whether the file exists and matches its checksum, without parsing it."""
    try:
        text, _, checksum = path.read_text().rpartition(_CHECKSUM_PREFIX)
    except (OSError, UnicodeDecodeError):
        return False
    return checksum == f"{_hash(text)}\n"


def contains_node(path: Path, name: str, node: Any) -> bool:
    """Return whether a file of `write_config` contains this top-level node, without parsing it."""
    return "\n" + _node_yaml(name, json.dumps(to_plain(node))) in "\n" + path.read_text()


def read_config(path: Path) -> Config:
    """Read a config, checksummed or handwritten. Raises UserError if it is missing, damaged or invalid."""
    try:
        if _CHECKSUM_PREFIX in path.read_text() and not checksum_ok(path):
            raise UserError(f"{path} does not fit its checksum: it was changed after it was written.")
        return to_config(with_new_names(_load_containers(path)))
    except OSError as error:
        raise UserError(f"{path}: cannot read the resolved config ({error.strerror})") from error
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as a config: {reason}") from error


def stored_config_hash(path: Path) -> str:
    """Return `hash_json` of the file's content as it is, even if the schema has new keys."""
    return hash_json(_load_containers(path))


def _load_containers(path: Path) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(path))
    if not isinstance(content, dict):
        raise ValueError("the file is not a mapping")
    return cast(dict[str, Any], content)


@functools.lru_cache(1024)
def _node_yaml(name: str, node: str) -> str:
    """Format a top-level node, cached because most runs of a sweep share it."""
    return OmegaConf.to_yaml(OmegaConf.create({name: json.loads(node)}))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
