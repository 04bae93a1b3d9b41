"""The resolved config of a run as YAML: the launcher writes it, the worker reads it."""

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
    """The config as YAML, sealed by a last line: a flipped bit in a learning rate is still valid YAML."""
    text = "".join(_node_yaml(name, json.dumps(node)) for name, node in to_plain(config).items())
    atomic_files.write_text(path, f"{text}{_CHECKSUM_PREFIX}{_hash(text)}\n")


def checksum_ok(path: Path) -> bool:
    """Whether a file is there as it was written, without parsing it."""
    try:
        text, _, seal = path.read_text().rpartition(_CHECKSUM_PREFIX)
    except (OSError, UnicodeDecodeError):
        return False
    return seal == f"{_hash(text)}\n"


def contains_node(path: Path, name: str, node: Any) -> bool:
    """Whether a file that `write_config` wrote has this top-level node, without parsing it."""
    return "\n" + _node_yaml(name, json.dumps(to_plain(node))) in "\n" + path.read_text()


def read_config(path: Path) -> Config:
    """Raises UserError where the file is missing, damaged or of another schema. A file without a
    seal was written by hand, and is read as it is."""
    try:
        if _CHECKSUM_PREFIX in path.read_text() and not checksum_ok(path):
            raise UserError(f"{path} does not fit its checksum: it was changed after it was written")
        return to_config(with_new_names(_load_containers(path)))
    except OSError as error:
        raise UserError(f"{path}: no resolved config can be read there ({error.strerror})") from error
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as a config: {reason}") from error


def stored_config_hash(path: Path) -> str:
    """`digest` of the config in a file as it stands there, whatever keys the schema has got since."""
    return hash_json(_load_containers(path))


def _load_containers(path: Path) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(path))
    if not isinstance(content, dict):
        raise ValueError("it holds no mapping")
    return cast(dict[str, Any], content)


@functools.lru_cache(1024)
def _node_yaml(name: str, node: str) -> str:
    """A top-level node, which most runs of a sweep share."""
    return OmegaConf.to_yaml(OmegaConf.create({name: json.loads(node)}))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
