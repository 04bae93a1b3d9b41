"""Renamed config keys: old files stay readable, and an error for an old override names the new key."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Node = dict[str, Any]


@dataclass(frozen=True)
class RenamedKey:
    """Old and new name of a dotted key; `*` matches any name at its position."""

    old: str
    new: str
    values: Mapping[Any, Any] = field(default_factory=dict)
    """New value by old value, if values changed too."""


RENAMED = (
    RenamedKey("ladder", "roster"),
    RenamedKey("compute.layers", "compute.scan_layers", {"unrolled": False, "scanned": True}),
    RenamedKey("compute.precision", "compute.dtype"),
    RenamedKey("finetune.method", "finetune.method", {"frozen": "last_layers"}),
    RenamedKey("finetune.layers", "finetune.trainable_layers"),
    RenamedKey("optimizer.z_loss", "loss.z_loss"),
    RenamedKey("data.unlabelled", "data.label_dropout"),
    RenamedKey("cluster.kinds.*.fast_domain", "cluster.kinds.*.scale_up_domain"),
    RenamedKey("cluster.kinds.*.fast_gb_s", "cluster.kinds.*.scale_up_gb_s"),
    RenamedKey("cluster.kinds.*.slow_gb_s", "cluster.kinds.*.scale_out_gb_s"),
    RenamedKey("cluster.kinds.*.device_years", "cluster.kinds.*.mtbf_device_years"),
)

ADDED = (
    ("model", "logit_softcap", None),
    ("model", "vocabulary_multiple", 128),
    ("model", "block", {"name": "pre_norm", "options": {}}),
    ("model", "norm", {"name": "rms", "options": {}}),
    ("model", "position", {"name": "rope", "options": {}}),
    ("model", "embedding", {"name": "table", "options": {}}),
    ("model", "head", {"name": "linear", "options": {}}),
    ("model", "initialisation", {"name": "fan_in", "options": {}}),
    ("model", "scaling", {"name": "mup", "options": {}}),
    ("model", "options", {}),
    ("optimizer", "options", {}),
    ("optimizer", "groups", []),
    ("data", "options", {}),
    ("data", "vocabulary", None),
    ("data", "end_token", None),
    ("data", "packing", "concatenate"),
    ("data", "order", "random"),
    ("data", "order_block", 1024),
    ("evaluation", "sets", {}),
    ("evaluation", "decontaminate", 13),
    ("schedule", "options", {}),
    ("schedule", "values", {}),
    ("compute", "parameter_dtype", "float32"),
    ("compute", "kernels", "auto"),
    ("compute", "products", {"attention": "dtype", "feedforward": "dtype"}),
    ("optimizer", "moment_dtype", "float32"),
    ("schedule", "warmup_tokens", None),
    ("evaluation", "every_tokens", None),
    ("checkpoint", "every_tokens", None),
    ("checkpoint", "every_minutes", None),
)
"""Keys of a node that the first version did not have, and the value with which they change nothing of what it
computed. Rows that are no token, and kernels, change only rounding."""

ADDED_SOURCE_KEYS: Mapping[str, Any] = {"format": None, "options": {}, "validation": None}
"""Keys of each of `data.sources` that the first version did not have, with the same value."""

ADDED_NODES: Mapping[str, Any] = {"objective": {"name": "next_token", "options": {}}, "metrics": []}
"""Nodes that the first version did not have, with the same value."""

NULLABLE = (("compute", "scan_layers", False),)
"""Keys that were not null in the first version, and the value that stood for what null says today."""

SOURCES = (("scale", "learning_rate"),)
"""Keys that a run does not read itself: others are computed from them."""


def with_new_names(config: Mapping[str, Any]) -> Node:
    """Return a config of any version under today's key names, also inside `variant.touches`."""
    content: Node = copy.deepcopy(dict(config))
    for key in RENAMED:
        _move(content, key.old, key.new, key.values)
    _rename_touches(content, {key.old: key.new for key in RENAMED})
    return content


def with_first_names(config: Mapping[str, Any]) -> Node:
    """Return today's config under each key's first name; a run's identity is hashed over these names."""
    content: Node = copy.deepcopy(dict(config))
    for node, key, value in NULLABLE:
        if node in content and content[node].get(key, "") is None:
            content[node][key] = value
    for node, key in SOURCES:
        content.get(node, {}).pop(key, None)
    for key in RENAMED:
        _move(content, key.new, key.old, {new: old for old, new in key.values.items()})
    if not content.get("loss", True):
        del content["loss"]
    for node, neutral in ADDED_NODES.items():
        if content.get(node) == neutral:
            del content[node]
    for node, key, neutral in ADDED:
        if node in content and content[node].get(key, "") == neutral:
            del content[node][key]
    for source in content.get("data", {}).get("sources", {}).values():
        for key, neutral in ADDED_SOURCE_KEYS.items():
            if source.get(key, "") == neutral:
                del source[key]
    _rename_touches(content, {key.new: key.old for key in RENAMED})
    return content


def is_same_identity(key: str, values: tuple[Any, Any]) -> bool:
    """Return whether two values of a dotted key count as one in a run's identity."""
    if key in {f"{node}.{name}" for node, name in SOURCES}:
        return True
    return any(key == f"{node}.{name}" and {*values} == {None, value} for node, name, value in NULLABLE)


def renamed_key_message(key: str, value: str = "") -> str | None:
    """Return a message with today's name of a key and of its value; None if neither was renamed."""
    for renamed_key in RENAMED:
        same_key = renamed_key.old == renamed_key.new
        if not _matches(renamed_key.old, key) or (same_key and value not in renamed_key.values):
            continue
        new_value = renamed_key.values.get(value, value)
        text = str(new_value).lower() if isinstance(new_value, bool) else str(new_value)
        new_name = f"{_fill_wildcards(renamed_key.new, key)}{'=' * bool(text)}{text}"
        return f"{key}{'=' * bool(value)}{value} was renamed: write {new_name}"
    return None


def _matches(pattern: str, key: str) -> bool:
    parts, names = pattern.split("."), key.split(".")
    return len(parts) == len(names) and all(p in ("*", n) for p, n in zip(parts, names, strict=True))


def _fill_wildcards(pattern: str, key: str) -> str:
    names = key.split(".")
    return ".".join(names[i] if part == "*" else part for i, part in enumerate(pattern.split(".")))


def _move(config: Node, source: str, target: str, values: Mapping[Any, Any]) -> None:
    for key in [*_matching_keys(config, source.split("."))]:
        *path, name = key.split(".")
        node: Any = config
        for part in path:
            node = node[part]
        value = node.pop(name)
        *path, name = _fill_wildcards(target, key).split(".")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        if isinstance(node, dict):
            node[name] = values.get(value, value) if isinstance(value, str | bool) else value


def _matching_keys(node: Any, parts: list[str], prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of the config that matches the parts of a pattern."""
    if not isinstance(node, dict):
        return
    first, *later_parts = parts
    for name in [*node] if first == "*" else [first] * (first in node):
        if later_parts:
            yield from _matching_keys(node[name], later_parts, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _rename_touches(config: Node, names: Mapping[str, str]) -> None:
    variant = config.get("variant")
    if isinstance(variant, dict) and isinstance(variant.get("touches"), list):
        variant["touches"] = [names.get(node, node) for node in variant["touches"]]
