"""Bytes that one device receives in a collective operation.

The count is that of a ring algorithm, the minimum over algorithms when all links are alike. With n devices in
a group and b operand bytes on each: all-gather (n-1) b, which is (n-1)/n of its result; reduce-scatter
(n-1)/n b; all-reduce the sum of both, 2 (n-1)/n b; all-to-all (n-1)/n b; collective-permute and
collective-broadcast b, on a receiving device; ragged-all-to-all (n-1)/n of its first operand, as if the load
were even. Bytes are read from the operands, because the result of an asynchronous start may be any tuple.
"""

from __future__ import annotations

import math
import re

from harness.aot.hlo.text import Computation, Instruction, Module, num_bytes
from harness.core.errors import UserError

COLLECTIVES = (
    "all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute", "collective-broadcast",
    "ragged-all-to-all",
)  # fmt: skip

_GROUPS = re.compile(r"\breplica_groups=(\{\{.*?\}\}|\{\}|\[[\d,]+\]<=|mesh\[[^\]]*\][^{]*\{[^}]*\}|\S*)")
_MESH_AXIS = re.compile(r"'([^']+)'=(\d+)")
_GROUP_AXIS = re.compile(r"'([^':]+)'?(?::\(\d+\)(\d+))?")
_PAIR = re.compile(r"\{(\d+),(\d+)\}")


def bytes_received(module: Module, computation: Computation, collective: Instruction, kind: str) -> float:
    """Return the bytes that one device receives, by the convention of this file."""
    names = collective.operands[:1] if kind == "ragged-all-to-all" else collective.operands
    operands = sum(num_bytes(computation.instructions[name].shape) for name in names)
    if kind == "collective-permute":
        return operands if _crosses_devices(collective) else 0.0
    n = group_size(collective.attributes, module.devices)
    if kind == "collective-broadcast":
        return operands if n > 1 else 0.0
    share = {"all-gather": n, "all-reduce": 2}.get(kind, 1)
    return share * (n - 1) / n * operands


def continued_collectives(module: Module) -> set[str]:
    """Return the names of collectives that continue an earlier one and move nothing more.

    A TPU spreads one collective over several fusions, to overlap it with their products, and repeats it with
    its channel in each of them. The first fusion holds an `AsyncCollectiveStart`.
    """
    computations = module.computations.values()
    starting = [c for c in computations if any(map(_starts_collective, c.instructions.values()))]
    channels = {op.text_value("channel_id") for c in starting for op in _collectives(c)}
    continuing = (c for c in computations if channels and c not in starting)
    return {op.name for c in continuing for op in _collectives(c) if op.text_value("channel_id") in channels}


def _starts_collective(instruction: Instruction) -> bool:
    return instruction.opcode == "custom-call" and "AsyncCollectiveStart" in instruction.tail


def _collectives(computation: Computation) -> list[Instruction]:
    return [op for op in computation.instructions.values() if op.opcode in COLLECTIVES]


def _crosses_devices(permute: Instruction) -> bool:
    """Return True if any device receives from a device other than itself."""
    pairs = permute.attributes.partition("source_target_pairs=")[2].partition("}}")[0] + "}"
    return any(source != target for source, target in _PAIR.findall(pairs))


def group_size(attributes: str, devices: int) -> int:
    """Return the number of devices in the largest replica group.

    Spellings: `{{0,1},{2,3}}`; `[2,4]<=[8]` with or without a transpose; `mesh['x'=2,'y'=4] {'y'}`, where an
    axis may be split, as in `'y':(2)2`. No group, or an empty one, means all `devices`. Raises UserError for
    any other spelling.
    """
    match = _GROUPS.search(attributes)
    spelling = match[1] if match else "{}"
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
    raise UserError(f"the compiler wrote replica_groups={spelling}, a spelling that this version cannot read")
