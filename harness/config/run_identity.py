"""Identity hash of a run, and the leaves in which two configs differ."""

from __future__ import annotations

from typing import Any

from harness.config.renamed_keys import with_first_names
from harness.config.schema.run import Config
from harness.core.hashing import flatten, hash_json, to_plain

VOLATILE = (
    "roster", "mesh", "cluster", "engine", "resume", "rule", "gate", "tune", "profile", "tracker", "runs",
)  # fmt: skip
"""Nodes outside the identity: where, with which retries and for which test a run is trained, and what shows
it."""

TAKEN_UP = ("checkpoint.keep_last", "checkpoint.keep_every")
"""Keys in the hash that change nothing of what a run computes. A run that continues takes them up."""


def identity(config: Config) -> str:
    """Return the sha256 of every node except the volatile ones, 64 hex digits."""
    nodes = {key: value for key, value in to_plain(config).items() if key not in VOLATILE}
    return hash_json(with_first_names(nodes))


def config_difference(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Return the leaves that differ, `{dotted key: (a, b)}`; a missing leaf is None."""
    leaves_a, leaves_b = flatten(a), flatten(b)
    pairs = {key: (leaves_a.get(key), leaves_b.get(key)) for key in sorted(leaves_a.keys() | leaves_b.keys())}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
