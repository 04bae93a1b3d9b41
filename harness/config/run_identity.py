"""Identity of a run, and the difference set of two configs."""

from __future__ import annotations

from typing import Any

from harness.config.renamed_keys import with_first_names
from harness.config.schema.run import Config
from harness.core.hashing import flatten, hash_json, to_plain

VOLATILE = ("roster", "mesh", "cluster", "engine", "resume", "rule", "gate", "tune", "profile", "runs")
"""Nodes that say where, how patiently, or what for a run is trained, but not what it is."""


def identity(config: Config) -> str:
    """Hash what makes a run this run: every node but the volatile ones, as 64 hex digits."""
    nodes = {key: value for key, value in to_plain(config).items() if key not in VOLATILE}
    return hash_json(with_first_names(nodes))


def config_difference(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """Every leaf in which two configs differ, `{dotted key: (one, other)}`; absent leaves are None."""
    left_leaves, right_leaves = flatten(one), flatten(other)
    keys = sorted(left_leaves.keys() | right_leaves.keys())
    return {
        key: (left_leaves.get(key), right_leaves.get(key))
        for key in keys
        if left_leaves.get(key) != right_leaves.get(key)
    }
