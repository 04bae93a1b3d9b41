"""Under what a run was trained: `run.json`."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.config.run_identity import identity
from harness.config.schema.run import Config
from harness.core.atomic_files import read_checksummed_json, write_checksummed_json
from harness.core.hashing import hash_json
from harness.records.paths import RunDir

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers")


@dataclass(frozen=True)
class Facts:
    """What `harness.worker.describe` says of one config; all that `fleet`, `plan` and `compare` know of a
    model."""

    parameters: int
    non_embedding: int
    embedding: int
    shape: dict[str, int]
    """width, layers, heads, ffn, head_width, vocabulary: what sizing found; of images also height, breadth,
    channels and patch."""
    flops_per_token: float
    """Model FLOPs of one trained token: 6 a parameter in use plus causal attention."""
    executed_flops_per_token: float
    """FLOPs of one trained token as the code multiplies them."""
    paths: dict[str, list[int]]
    """Shape of each parameter by path."""
    state_bytes: int
    """Parameters, gradients and optimizer state of one run."""
    activation_bytes: int
    """A closed-form guess of what the backward pass keeps."""
    steps: int
    tokens_per_step: int
    data_fingerprint: str
    """Hash of what is read: content of the sources, tokenizer, sequence length, hold-out, mixes."""
    eval_fingerprint: str
    """Hash of the held-out tokens that are evaluated."""
    end_token: int | None = None
    """What ends a document."""
    cache_bytes: float = 0.0
    """What decoding keeps of one sequence of the config's length; 0 where that was not described."""
    draws: dict[str, int] = field(default_factory=dict)
    """Examples that the run takes from each source. The order of a source is the data seed's: of two
    runs the one that takes fewer takes what the other takes first."""
    mixes: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    """First step of each mix, and its examples of each source in 4096. While two runs of one data seed
    have one mix, they read the same batches."""
    base: dict[str, Any] | None = None
    """For a run that starts from another's checkpoint, its {"run", "name", "step", "identity", "checksum"}"""
    trainable: int = 0
    """Parameters that learn, where a run starts from another's; 0 for one that is drawn."""
    active_parameters: int = 0
    """Non-embedding parameters that one token passes through; 0 where that was not described."""
    loss_unit: str = "nats a token"
    splits: dict[str, int] = field(default_factory=dict)
    """Parameters by the axes of a mesh that split them, such as `fsdp tensor`; empty where that was not
    described."""


@dataclass(frozen=True)
class Provenance:
    """Content of `run.json`, written by the launcher before the run's first step."""

    identity: str
    config_hash: str
    code_hash: str
    experiment: str
    scale: str
    variant: str
    seed: int
    data_seed: int
    parameters: int
    tokens: int
    facts: Facts
    versions: dict[str, str]
    touches: list[str] = field(default_factory=list)
    parent: dict | None = None
    """For a branch: {"run", "step", "share"} of the run and the checkpoint that it started from."""
    surroundings: list[dict[str, Any]] = field(default_factory=list)
    """What the worker saw (records.run.environment), each entry from its `step` on; empty where none said."""


def identity_of(config: Config, facts: Facts) -> str:
    """What makes a run this run: its config, and the content of the checkpoint that it starts from."""
    config_identity = identity(config)
    return hash_json([config_identity, facts.base["checksum"]]) if facts.base else config_identity


def write_provenance(run: RunDir, record: Provenance) -> None:
    write_checksummed_json(run.run, dataclasses.asdict(record))


def read_provenance(run: RunDir) -> Provenance | None:
    """None where the file is missing, damaged or of another layout."""
    content = read_checksummed_json(run.run)
    if content is None:
        return None
    try:
        fields: dict[str, Any] = {**content, "facts": Facts(**content["facts"])}
        return Provenance(**fields)
    except (TypeError, KeyError):
        return None


@functools.cache
def package_versions() -> dict[str, str]:
    """Of this process; looked up once, since a sweep asks for each of its runs."""
    return {name: metadata.version(name) for name in PACKAGES}


def code_hash_at(code_hash: str, step: int) -> str:
    """The code that trained the update from a step on: of a run that drifted, the hash that held there."""
    for part in code_hash.split("+"):
        code, _, until = part.partition("@")
        if not until.isdecimal() or step < int(until):
            return code
    return ""


TRAINING = ("config", "core", "data", "models", "parallel", "records", "training", "worker")
"""What of the harness a trained number depends on; to mend a table must not restart a run."""


@functools.cache
def code_hash(*extra: Path) -> str:
    """sha256 over the Python files that training runs and over users', by relative path."""
    home = Path(__file__).parents[2]
    total = hashlib.sha256()
    for root in (*(home / part for part in TRAINING), *extra):
        for path in [root] if root.is_file() else sorted(root.rglob("*.py")):
            total.update(str(path.relative_to(root.parent)).encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def code_hash_of(config: Config) -> str:
    """The code hash of a run: the harness, and the modules that its config imports."""
    return code_hash(*filter(None, (_source_path(name) for name in config.imports)))


def _source_path(module: str) -> Path | None:
    """The folder of a module inside a package, or the file of one that stands alone; None without either.

    Found without importing it, since the one who asks may not import JAX.
    """
    top, *submodules = module.split(".")
    for entry in map(Path, sys.path):
        path = entry.joinpath(top, *submodules)
        if path.is_dir():
            return path
        if path.with_suffix(".py").is_file():
            return path.parent if submodules else path.with_suffix(".py")
    return None
