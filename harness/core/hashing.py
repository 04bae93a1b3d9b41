"""Conversion of configs to plain JSON, and hashes of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from enum import Enum
from typing import Any


def to_plain(node: Any) -> Any:
    """Convert a config to JSON-serialisable containers; enums become their values."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return {f.name: to_plain(getattr(node, f.name)) for f in dataclasses.fields(node)}
    if isinstance(node, dict):
        return {str(key): to_plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [to_plain(value) for value in node]
    return node.value if isinstance(node, Enum) else node


def hash_json(node: Any) -> str:
    """Return the sha256 of the canonical JSON of a config node, 64 hex digits."""
    text = json.dumps(to_plain(node), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves by dotted key. An empty container is a leaf."""
    node = to_plain(node)
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return leaves


def is_covered_by(key: str, nodes: list[str]) -> bool:
    """Return whether a dotted key equals one of the nodes, or is its ancestor or descendant."""
    return any(key == node or key.startswith(node + ".") or node.startswith(key + ".") for node in nodes)
