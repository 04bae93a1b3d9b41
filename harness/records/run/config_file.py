"""Resolved config of a run as YAML, written by the launcher and read by the worker."""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import json
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.config.renamed_keys import with_new_names
from harness.config.schema.run import Config, to_config
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.core.hashing import hash_json, to_plain
from harness.core.paths import within_folder

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_BYTES = 2**20
"""Size above which a config counts as damaged; the largest ones have some 20 kB."""
_CHECKSUM_PREFIX = "# sha256 of the lines above: "


def write_config(path: Path, config: Config) -> None:
    """Write YAML with a checksum in the last line: a flipped bit in a learning rate is still valid YAML."""
    atomic_files.write_text(path, _file_text(config))


def holds_config(path: Path, config: Config) -> bool:
    """Return whether a file is what `write_config` writes for this config, without parsing it."""
    return within_folder(path).read_text() == _file_text(config)


def _file_text(config: Config) -> str:
    text = "".join(_node_yaml(name, json.dumps(node)) for name, node in to_plain(config).items())
    return f"{text}{_CHECKSUM_PREFIX}{_hash(text)}\n"


def checksum_ok(path: Path) -> bool:
    """Return whether the file exists and matches its checksum, without parsing it."""
    try:
        return text_checksum_ok(atomic_files.read_record(path, MAX_BYTES) or "")
    except OSError:
        return False


def text_checksum_ok(text: str) -> bool:
    """Return whether the text of a config ends with its checksum."""
    body, _, checksum = text.rpartition(_CHECKSUM_PREFIX)
    return checksum == f"{_hash(body)}\n"


def contains_node(path: Path, name: str, node: Any) -> bool:
    """Return whether a file of `write_config` contains this top-level node, without parsing it."""
    return "\n" + _node_yaml(name, json.dumps(to_plain(node))) in "\n" + within_folder(path).read_text()


def read_config(path: Path) -> Config:
    """Read a config, checksummed or handwritten. Raises UserError if it is missing, damaged or invalid."""
    try:
        if _CHECKSUM_PREFIX in within_folder(path).read_text() and not checksum_ok(path):
            raise UserError(f"{path} does not fit its checksum: it was changed after it was written.")
        return copy.deepcopy(_parse_typed(within_folder(path).read_text("utf-8")))
    except OSError as error:
        raise UserError(f"{path}: cannot read the resolved config ({error.strerror})") from error
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a config: {str(error).splitlines()[0]}") from error


def stored_config_hash(path: Path) -> str:
    """Return `hash_json` of the file's content as it is, even if the schema has new keys."""
    return hash_json(_to_containers(within_folder(path).read_text("utf-8")))


def parse_config(text: str) -> Any:
    """Parse YAML as it was written, without a schema. Raises YAMLError, or ValueError for aliases, which
    could expand a few kB to gigabytes, and for nodes nested too deep."""
    depth = 0
    for event in yaml.parse(text, _LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > atomic_files.MAX_DEPTH:
            raise ValueError(f"line {event.start_mark.line + 1} has an alias, or is nested too deep")
    return yaml.load(text, _LOADER)


@functools.lru_cache(64)
def _parse_typed(text: str) -> Config:
    """Parse the text of a file, cached because a process asks for the config of its run many times."""
    return to_config(with_new_names(_to_containers(text)))


def _to_containers(text: str) -> dict[str, Any]:
    parse_config(text)
    content = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    if not isinstance(content, dict):
        raise ValueError("the file is not a mapping")
    return cast(dict[str, Any], content)


@functools.lru_cache(1024)
def _node_yaml(name: str, node: str) -> str:
    """Format a top-level node, cached because most runs of a sweep share it."""
    return OmegaConf.to_yaml(OmegaConf.create({name: json.loads(node)}))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
