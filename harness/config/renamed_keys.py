"""Config keys that got other names: old files stay readable, an old override is answered with the new key."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Node = dict[str, Any]


@dataclass(frozen=True)
class RenamedKey:
    """A key before and after; `*` stands for any name at that place."""

    old: str
    new: str
    values: Mapping[Any, Any] = field(default_factory=dict)
    """Old value -> new value, where values changed too."""


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


def with_new_names(config: Mapping[str, Any]) -> Node:
    """Return the containers of a config, of any age, under today's names; `variant.touches` too."""
    renamed: Node = copy.deepcopy(dict(config))
    for key in RENAMED:
        _move(renamed, key.old, key.new, key.values)
    _rename_touches(renamed, {key.old: key.new for key in RENAMED})
    return renamed


def with_first_names(config: Mapping[str, Any]) -> Node:
    """Return the containers of today's config under the names that each key had first.

    A run's identity is hashed over these, so that a rename makes no run another one.
    """
    renamed: Node = copy.deepcopy(dict(config))
    for key in RENAMED:
        _move(renamed, key.new, key.old, {new: old for old, new in key.values.items()})
    if not renamed.get("loss", True):
        del renamed["loss"]
    _rename_touches(renamed, {key.new: key.old for key in RENAMED})
    return renamed


def renamed_key_message(key: str, value: str = "") -> str | None:
    """Say what a key, and the value that was given to it, is called today; None if nothing was renamed."""
    for known in RENAMED:
        if not _matches(known.old, key) or (known.old == known.new and value not in known.values):
            continue
        new = _filled(known.new, key)
        today = known.values.get(value, value)
        shown = str(today).lower() if isinstance(today, bool) else str(today)
        return f"{key}{'=' * bool(value)}{value} was renamed: write {new}{'=' * bool(shown)}{shown}"
    return None


def _matches(pattern: str, key: str) -> bool:
    parts, names = pattern.split("."), key.split(".")
    return len(parts) == len(names) and all(p in ("*", n) for p, n in zip(parts, names, strict=True))


def _filled(pattern: str, key: str) -> str:
    names = key.split(".")
    return ".".join(names[i] if part == "*" else part for i, part in enumerate(pattern.split(".")))


def _move(config: Node, source: str, target: str, values: Mapping[Any, Any]) -> None:
    for key in [*_keys(config, source.split("."))]:
        *path, name = key.split(".")
        node: Any = config
        for part in path:
            node = node[part]
        value = node.pop(name)
        *path, name = _filled(target, key).split(".")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        if isinstance(node, dict):
            node[name] = values.get(value, value) if isinstance(value, str | bool) else value


def _keys(node: Any, parts: list[str], prefix: str = "") -> Iterator[str]:
    """Every dotted key of the containers that fits a pattern's parts."""
    if not isinstance(node, dict):
        return
    first, *rest = parts
    for name in [*node] if first == "*" else [first] * (first in node):
        if rest:
            yield from _keys(node[name], rest, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _rename_touches(config: Node, names: Mapping[str, str]) -> None:
    variant = config.get("variant")
    if isinstance(variant, dict) and isinstance(variant.get("touches"), list):
        variant["touches"] = [names.get(node, node) for node in variant["touches"]]
