"""Facts about configs, from one process that may import JAX, and from the cache where it was asked before."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.config.schema.run import Config
from harness.core import atomic_files
from harness.core.cache_dir import cache_dir
from harness.core.errors import UserError
from harness.core.hashing import hash_json, to_plain
from harness.records.run.config_file import write_config
from harness.records.run.provenance import Facts, code_of

_IRRELEVANT = (
    "seed",
    "data_seed",
    "cluster",
    "engine",
    "resume",
    "rule",
    "gate",
    "tune",
    "runs",
    "experiment_name",
)
"""Nodes that change no fact. The mesh stays in: whether the batch divides over it is one."""


def describe_configs(configs: Sequence[Config]) -> list[Facts]:
    """Facts of each config, in order. Raises UserError with what is wrong with the first bad one."""
    keys = [description_key(config) for config in configs]
    known = {key: facts for key in {*keys} if (facts := _remembered(key)) is not None}
    missing = {key: config for key, config in zip(keys, configs, strict=True) if key not in known}
    if missing:
        for key, answer in zip(missing, _ask([*missing.values()]), strict=True):
            if "error" in answer:
                raise UserError(answer["error"])
            atomic_files.write_json(_path(key), answer["facts"])
            known[key] = Facts(**answer["facts"])
    return [known[key] for key in keys]


def description_key(config: Config) -> str:
    """What a description depends on: config, code, users' files and a parent as they lie there now."""
    relevant = {key: value for key, value in to_plain(config).items() if key not in _IRRELEVANT}
    paths = [config.data.tokenizer, *(source.path for source in config.data.sources.values())]
    return hash_json([relevant, code_of(config), [_stamp(Path(path)) for path in paths], _base_stamp(config)])


def _base_stamp(config: Config) -> list[Any]:
    """What lies of the run that this one starts from, as far as it says what is in its checkpoints."""
    if not config.finetune.parent:
        return []
    where = config.finetune.parent
    runs = [Path(path).resolve() for path in (where, where.rpartition("@")[0]) if path]
    names = ("run.json", "status.json", "config.yaml", "checkpoints/*.manifest.json")
    return [[str(run), [_stamp(file) for name in names for file in sorted(run.glob(name))]] for run in runs]


def _stamp(path: Path) -> list[Any]:
    """Size and time of a file, or of every file of a folder; empty for a name that is no path."""
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _path(key: str) -> Path:
    return cache_dir("described") / f"{key}.json"


def _remembered(key: str) -> Facts | None:
    content = atomic_files.read_json(_path(key))
    fields = {field.name for field in dataclasses.fields(Facts)}
    return Facts(**content) if isinstance(content, dict) and content.keys() == fields else None


def _ask(configs: Sequence[Config]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="ab-harness-") as folder:
        paths = [Path(folder) / f"{index}.yaml" for index in range(len(configs))]
        for path, config in zip(paths, configs, strict=True):
            write_config(path, config)
        command = [sys.executable, "-m", "harness.worker.describe", *map(str, paths)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named 'jax'" in answer.stderr:
        raise UserError(
            f"{sys.executable} has no JAX: configs are described before a launch, also on a login node"
        )
    if answer.returncode:
        last = answer.stderr.strip().rpartition("\n")[2] or f"status {answer.returncode}"
        raise RuntimeError(f"harness.worker.describe ended without an answer: {last}\n{answer.stderr}")
    return json.loads(answer.stdout)
