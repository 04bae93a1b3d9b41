"""Slices of TPUs in a Ray: a run over several processes is all of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.errors import UserError

LABEL = "ray.io/tpu-slice-name"
"""Which Ray gives to every host of a slice that it recognises (ray/_private/accelerators/tpu.py)."""


@dataclass(frozen=True)
class Shape:
    """Of a slice, as a run asks for it: libtpu waits for all hosts of one, each with all its chips."""

    chips: str
    """The resource of Ray that they are."""
    share: int
    """On each host."""
    hosts: int


def check(shape: Shape, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError where no slice is so, whatever is free."""
    if whole(shape, nodes):
        return
    had = [", ".join(f"{each:g}" for each in chips) for chips in _by_slice(shape.chips, nodes).values()]
    separate = ", each a slice of its own" if len(had) > 1 else ""
    raise UserError(
        f"engine.processes={shape.hosts}: on TPUs several processes are all hosts of one slice, with all "
        f"their chips, and this Ray has {' and '.join(had)}{separate}: give as many processes as hosts, and "
        "a mesh of all chips, or train on one host with engine=local engine.isolation=all"
    )


def whole(shape: Shape, nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the slices that are so; '' for hosts without a name, which are one slice if no other has a
    name."""
    slices = _by_slice(shape.chips, nodes)
    return [
        name
        for name, chips in sorted(slices.items())
        if chips == [shape.share] * shape.hosts and (name or len(slices) == 1)
    ]


def slice_of(node: Mapping[str, Any]) -> str:
    """Empty where Ray knows of none."""
    return node.get("Labels", {}).get(LABEL, "")


def _by_slice(resource: str, nodes: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """What each living host has of it."""
    found: dict[str, list[float]] = {}
    for node in nodes:
        if node["Alive"] and (has := node["Resources"].get(resource, 0)):
            found.setdefault(slice_of(node), []).append(has)
    return found
