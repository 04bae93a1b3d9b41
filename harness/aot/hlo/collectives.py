"""Bytes that one device receives in a collective operation.

The convention is that of a ring, the least that any algorithm needs where all links are alike. With n devices
in a group and b bytes of operands on each: all-gather (n-1) b, which is (n-1)/n of its result; reduce-scatter
(n-1)/n b; all-reduce both, 2 (n-1)/n b; all-to-all (n-1)/n b; collective-permute and collective-broadcast b,
as the device that receives; ragged-all-to-all (n-1)/n of its first operand, as if the load were even.
Operands are the same whatever tuple an asynchronous start answers with, so the bytes are read from them.
"""

from __future__ import annotations

import math
import re

from harness.aot.hlo.shapes import size
from harness.aot.hlo.text import Computation, Instruction, Module
from harness.core.errors import UserError

KINDS = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
)

_GROUPS = re.compile(r"\breplica_groups=(\{\{.*?\}\}|\{\}|\[[\d,]+\]<=|mesh\[[^\]]*\][^{]*\{[^}]*\}|\S*)")
_MESH_AXIS = re.compile(r"'([^']+)'=(\d+)")
_GROUP_AXIS = re.compile(r"'([^':]+)'?(?::\(\d+\)(\d+))?")
_PAIR = re.compile(r"\{(\d+),(\d+)\}")


def received(module: Module, computation: Computation, collective: Instruction, kind: str) -> float:
    """Bytes, by the convention of this file."""
    names = collective.operands[:1] if kind == "ragged-all-to-all" else collective.operands
    operands = sum(size(computation.instructions[name].shape) for name in names)
    if kind == "collective-permute":
        return operands if _moves(collective) else 0.0
    n = group_size(collective.attributes, module.devices)
    if kind == "collective-broadcast":
        return operands if n > 1 else 0.0
    share = {"all-gather": n, "all-reduce": 2}.get(kind, 1)
    return share * (n - 1) / n * operands


def carried_on(module: Module) -> set[str]:
    """Names of collectives that only carry on what another one began. A TPU spreads one operation over
    several fusions, to run beside their products, and writes it with its channel in each of them; the first
    one holds an `AsyncCollectiveStart`."""
    starts = [each for each in module.computations.values() if any(map(_begins, each.instructions.values()))]
    channels = {found.word("channel_id") for each in starts for found in _collectives(each)}
    others = (each for each in module.computations.values() if channels and each not in starts)
    return {
        found.name for each in others for found in _collectives(each) if found.word("channel_id") in channels
    }


def _begins(instruction: Instruction) -> bool:
    return instruction.opcode == "custom-call" and "AsyncCollectiveStart" in instruction.rest


def _collectives(computation: Computation) -> list[Instruction]:
    return [each for each in computation.instructions.values() if each.opcode in KINDS]


def _moves(permute: Instruction) -> bool:
    """Whether any device receives from another than itself."""
    pairs = permute.attributes.partition("source_target_pairs=")[2].partition("}}")[0] + "}"
    return any(source != target for source, target in _PAIR.findall(pairs))


def group_size(attributes: str, devices: int) -> int:
    """Devices of the largest group, in any of the spellings: `{{0,1},{2,3}}`, `[2,4]<=[8]` with or without a
    transpose, `mesh['x'=2,'y'=4] {'y'}` of which an axis may be split, as in `'y':(2)2`; none or an empty one
    means all. Raises UserError for any other: a group that cannot be read has no bytes."""
    found = _GROUPS.search(attributes)
    spelling = found[1] if found else "{}"
    if spelling == "{}":
        return devices
    if spelling.startswith("{{"):
        return max(group.count(",") + 1 for group in spelling.split("},"))
    if spelling.endswith("<="):
        return int(spelling[:-3].split(",")[-1])
    if spelling.startswith("mesh["):
        mesh, _, group = spelling.rpartition("{")
        sizes = dict(_MESH_AXIS.findall(mesh))
        return math.prod(int(part or sizes[axis]) for axis, part in _GROUP_AXIS.findall(group))
    raise UserError(f"the compiler wrote replica_groups={spelling}, which this version cannot read")
