"""TPU slices in a Ray cluster: a run with several processes uses all of one slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.errors import UserError

SLICE_LABEL = "ray.io/tpu-slice-name"
"""Label that Ray sets on every host of a slice that it detects (ray/_private/accelerators/tpu.py)."""


@dataclass(frozen=True)
class SliceShape:
    """The slice that a run needs. libtpu waits for all hosts of a slice, each with all its chips."""

    resource: str
    """Ray resource of the chips."""
    chips_per_host: int
    """Number of chips on each host."""
    hosts: int


def check_slice_exists(shape: SliceShape, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raise UserError if no slice has this shape, whether it is free or not."""
    if matching_slices(shape, nodes):
        return
    slices = _chips_by_slice(shape.resource, nodes).values()
    hosts = [", ".join(f"{count:g}" for count in chips) for chips in slices]
    separate = ", each a slice of its own" if len(hosts) > 1 else ""
    raise UserError(
        f"engine.processes={shape.hosts}: on TPUs a run's processes must be all hosts of one slice, with "
        f"all chips, but this Ray has {' and '.join(hosts)}{separate}. Use one process per host and a mesh "
        "of all chips, or train on one host with engine=local engine.isolation=all"
    )


def matching_slices(shape: SliceShape, nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the slices of this shape; '' is that of unlabelled hosts without other slices."""
    slices = _chips_by_slice(shape.resource, nodes)
    complete = [shape.chips_per_host] * shape.hosts
    return [name for name in sorted(slices) if slices[name] == complete and (name or len(slices) == 1)]


def slice_name(node: Mapping[str, Any]) -> str:
    """Return the name of a node's slice; empty if Ray knows none."""
    return node.get("Labels", {}).get(SLICE_LABEL, "")


def _chips_by_slice(resource: str, nodes: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return the chips of each living host, by slice name."""
    chips: dict[str, list[float]] = {}
    for node in nodes:
        if node["Alive"] and (count := node["Resources"].get(resource, 0)):
            chips.setdefault(slice_name(node), []).append(count)
    return chips
