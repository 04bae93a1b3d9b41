"""Facts about configs, computed in a child of the fork server, which imports JAX, and cached."""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.config.schema.run import Config
from harness.core.cache.cache_entries import DAMAGED, CacheEntry
from harness.core.errors import UserError
from harness.core.files.folder_walk import list_files
from harness.core.hashing import hash_json, to_plain
from harness.core.paths import is_remote
from harness.launcher.engines.local.fork_client import DESCRIBE_MODULE, ForkRequest, shared_server
from harness.records.run.config_file import write_config
from harness.records.run.provenance import Facts, code_hash_of, package_versions
from harness.records.typed_values import parse_record

_IGNORED_NODES = (
    "seed", "data_seed", "cluster", "engine", "resume", "rule", "gate", "tune", "tracker", "runs",
    "experiment_name",
)  # fmt: skip
"""Config nodes that change no fact. The mesh is not among them: the batch has to divide over it; of the
cluster the platform counts, for which kernels are chosen."""

_THIS_COMMAND = time.time_ns()
"""Stamp of data behind a URL: nobody knows without asking whether it is still the same."""


def describe_configs(configs: Sequence[Config]) -> list[Facts]:
    """Return the facts of each config, in order. Raises UserError with the mistake of the first bad one."""
    keys = [description_key(config) for config in configs]
    by_key = {key: facts for key in {*keys} if (facts := _read_cached(key)) is not None}
    missing = {key: config for key, config in zip(keys, configs, strict=True) if key not in by_key}
    if missing:
        for key, answer in zip(missing, _run_describe([*missing.values()]), strict=True):
            if "error" in answer:
                raise UserError(answer["error"])
            facts = Facts(**answer["facts"])
            if not facts.has_unread_sources:  # what is known of them changes when they are read
                _entry(key).write_json(answer["facts"])
            by_key[key] = facts
    return [by_key[key] for key in keys]


def description_key(config: Config) -> str:
    """Hash all that facts depend on: the config, the code, and the present state of data and parent files."""
    relevant = {key: value for key, value in to_plain(config).items() if key not in _IGNORED_NODES}
    sources = *config.data.sources.values(), *config.evaluation.sets.values()
    paths = config.data.tokenizer, *(source.path for source in sources)
    stamps = [[_THIS_COMMAND] if is_remote(path) else _stamps(Path(path)) for path in paths]
    code = code_hash_of(config), package_versions()
    return hash_json([relevant, config.cluster.platform, *code, stamps, _parent_stamps(config)])


def _parent_stamps(config: Config) -> list[Any]:
    """Return the stamps of the files of the parent run that tell which checkpoints it has."""
    if not config.finetune.parent:
        return []
    parent = config.finetune.parent
    runs = [Path(path).resolve() for path in (parent, parent.rpartition("@")[0]) if path]
    names = ("run.json", "status.json", "config.yaml", "checkpoints/*.manifest.json")
    return [[str(run), [_stamps(file) for name in names for file in sorted(run.glob(name))]] for run in runs]


def _stamps(path: Path) -> list[Any]:
    """Return path, size and mtime of a file, or of every file of a folder; empty if there is none."""
    try:
        place = path.expanduser()
        files = list_files(place).files if place.is_dir() else [place]
        return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    except (OSError, RuntimeError):  # a missing file or home; the description says so
        return []


def _entry(key: str) -> CacheEntry:
    return CacheEntry("described", "", key)


def _read_cached(key: str) -> Facts | None:
    content = _entry(key).read_json()
    fields = {field.name for field in dataclasses.fields(Facts)}
    return parse_record(Facts, content) if isinstance(content, dict) and content.keys() == fields else None


def _run_describe(configs: Sequence[Config]) -> list[dict[str, Any]]:
    with (
        tempfile.TemporaryDirectory(prefix="ab-harness-", ignore_cleanup_errors=True) as name,
        shared_server() as server,
    ):
        folder = Path(name)
        paths = [folder / f"{index}.yaml" for index in range(len(configs))]
        output, log = folder / "answers.json", folder / "log.txt"
        for path, config in zip(paths, configs, strict=True):
            write_config(path, config)
        code = server.run(ForkRequest(DESCRIBE_MODULE, [*map(str, paths)], str(log), output=str(output)))
        errors, answers = log.read_text(errors="replace"), output.read_text()
    if "No module named 'jax'" in errors:
        raise UserError(
            f"{sys.executable} has no JAX. A launch needs it to describe its configs, also on a login node."
        )
    if code:
        last = errors.strip().rpartition("\n")[2] or f"status {code}"
        raise RuntimeError(f"{DESCRIBE_MODULE} ended without an answer: {last}\n{errors}")
    for line in dict.fromkeys(errors.splitlines()):
        if "MovedNameWarning" in line or DAMAGED in line:
            print(line, file=sys.stderr)
    return json.loads(answers)
