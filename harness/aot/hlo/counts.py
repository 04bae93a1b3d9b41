"""The walk over a program: through fusions, calls, branches and loops, each as often as it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from harness.aot.hlo.collectives import KINDS, carried_on, received
from harness.aot.hlo.loops import inside, trips
from harness.aot.hlo.products import LIBRARY_PRODUCTS, convolution_flops, dot_flops, library_flops
from harness.aot.hlo.scalars import Frame
from harness.aot.hlo.shapes import size
from harness.aot.hlo.text import Computation, Instruction, Module, parse

LARGEST = 12
"""Transfers that are kept by name."""

WITHOUT_PRODUCTS = re.compile(r"AllocateBuffer|AssumeGather|AsyncCollective|Sharding|TopK|__cub\$")
"""Targets of custom calls that multiply nothing: buffers, notes, sorting."""

_PRODUCTS = ("dot", "scaled-dot", "ragged-dot", "convolution", "custom-call")
_ENTERED = ("fusion", "call", "async", "while", "conditional")


@dataclass(frozen=True)
class Transfer:
    """One collective operation in the text."""

    name: str
    kind: str
    bytes: float
    """Received by one device each time."""
    times: float
    """That it runs in a step."""

    @property
    def total(self) -> float:
        return self.bytes * self.times


@dataclass(frozen=True)
class Counts:
    """Of one device in one step, every loop as often as it runs."""

    dot_flops: float
    """Of all products, two for a multiplication and its addition. Products that a compiler wrote as sums of
    elementwise products, as it does with vectors, are none any more."""
    collective_bytes: dict[str, float]
    """Received, by kind; the convention of `harness.aot.hlo.collectives`."""
    unknown_loops: tuple[str, ...] = ()
    """Loops with products or collectives in them whose length the text does not tell: counted as one turn."""
    unread_kernels: tuple[str, ...] = ()
    """Targets of custom calls whose inside is not in the text, and kinds of products not counted here:
    what they multiply is not in `dot_flops`."""
    largest: tuple[Transfer, ...] = ()
    """The collectives that move most, at most 12."""


def read_hlo(text: str) -> Counts:
    """Counts optimized HLO text of one partition, as CPU, GPU and TPU compilers of JAX print it.

    Of the branches of a conditional the one with most FLOPs counts, of equal ones that with most bytes.
    Raises UserError where the text is no HLO, or spells a thing so that a number would be wrong.
    """
    module = parse(text)
    seen = _Walk(module).through(Frame(module, module.entry, lambda number, path: None))
    moved: dict[str, float] = {}
    for transfer in seen.transfers:
        moved[transfer.kind] = moved.get(transfer.kind, 0.0) + transfer.total
    return Counts(
        dot_flops=seen.flops,
        collective_bytes=moved,
        unknown_loops=tuple(dict.fromkeys(seen.loops)),
        unread_kernels=tuple(sorted(set(seen.kernels))),
        largest=tuple(sorted(seen.transfers, key=lambda transfer: -transfer.total)[:LARGEST]),
    )


@dataclass
class _Seen:
    """What was found in a part of the program that runs once."""

    flops: float = 0.0
    transfers: list[Transfer] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)

    def add(self, other: _Seen, times: int = 1) -> None:
        self.flops += times * other.flops
        self.transfers += [replace(found, times=times * found.times) for found in other.transfers]
        self.loops += other.loops
        self.kernels += other.kernels

    @property
    def weight(self) -> tuple[float, float]:
        return self.flops, sum(transfer.total for transfer in self.transfers)


class _Walk:
    def __init__(self, module: Module):
        self.module = module
        self._carried_on = carried_on(module)
        self._told: dict[str, bool] = {}

    def through(self, frame: Frame) -> _Seen:
        """One run of a computation."""
        seen = _Seen()
        if self.tells(frame.computation):
            for instruction in frame.computation.instructions.values():
                self._visit(frame, instruction, seen)
        return seen

    def tells(self, computation: Computation) -> bool:
        """Whether there is anything to count in a computation or in what it calls: most have nothing."""
        name = computation.name
        if name not in self._told:
            self._told[name] = any(map(self._tells, computation.instructions.values()))
        return self._told[name]

    def _tells(self, instruction: Instruction) -> bool:
        opcode = instruction.opcode.removesuffix("-start")
        if opcode in _PRODUCTS or opcode in KINDS:
            return True
        called = instruction.called if opcode in _ENTERED else ()
        return any(self.tells(self.module.computations[name]) for name in called)

    def _visit(self, frame: Frame, instruction: Instruction, seen: _Seen) -> None:
        """Of an asynchronous operation the start counts, and not the done."""
        opcode = instruction.opcode.removesuffix("-start")
        if instruction.name in self._carried_on:
            return
        if opcode in KINDS:
            moved = received(self.module, frame.computation, instruction, opcode)
            seen.transfers.append(Transfer(instruction.name, opcode, moved, 1))
        elif opcode in _PRODUCTS:
            _multiply(frame.computation, instruction, opcode, seen)
        elif opcode == "while":
            self._loop(frame, instruction, seen)
        elif opcode == "conditional":
            self._branches(frame, instruction, seen)
        elif opcode in _ENTERED:
            for name in instruction.called:
                self._enter(frame, instruction, name, seen)

    def _loop(self, frame: Frame, loop: Instruction, seen: _Seen) -> None:
        body, condition = (self.through(inside(frame, loop, part)) for part in ("body", "condition"))
        if body == condition == _Seen():
            return
        turns = trips(frame, loop)
        if turns is None:
            seen.loops.append(loop.name)
            turns = 1
        seen.add(body, turns)
        seen.add(condition, turns + 1)

    def _branches(self, frame: Frame, conditional: Instruction, seen: _Seen) -> None:
        def branch(name: str, operand: str) -> _Seen:
            computation = self.module.computations[name]
            return self.through(Frame(self.module, computation, lambda _, path: frame.value(operand, path)))

        given = zip(conditional.called, conditional.operands[1:], strict=True)
        seen.add(max((branch(*each) for each in given), key=lambda found: found.weight))

    def _enter(self, frame: Frame, caller: Instruction, name: str, seen: _Seen) -> None:
        called = frame.called(caller, name)
        found = self.through(called)
        if _keeps_slices(called.computation, caller):
            found.transfers = [_scattered(transfer) for transfer in found.transfers]
        seen.add(found)


def _keeps_slices(fused: Computation, fusion: Instruction) -> bool:
    """Whether a fusion is what a TPU makes of a reduce-scatter: an all-reduce and slices of its result."""
    if fusion.opcode != "fusion" or not any(
        each.opcode == "dynamic-slice" for each in fused.instructions.values()
    ):
        return False
    reduced = [each.shape for each in fused.instructions.values() if each.opcode == "all-reduce"]
    return bool(reduced) and size(fusion.shape) < sum(map(size, reduced))


def _scattered(transfer: Transfer) -> Transfer:
    """A reduce-scatter in place of an all-reduce: without the second half, which gathers again."""
    if transfer.kind != "all-reduce":
        return transfer
    return replace(transfer, kind="reduce-scatter", bytes=transfer.bytes / 2)


def _multiply(computation: Computation, product: Instruction, opcode: str, seen: _Seen) -> None:
    """Adds the FLOPs of an operation of `_PRODUCTS`, or the name of a kernel that cannot be read."""
    target = product.word("custom_call_target") or opcode
    if opcode == "dot":
        seen.flops += dot_flops(computation, product)
    elif opcode == "convolution":
        seen.flops += convolution_flops(computation, product)
    elif LIBRARY_PRODUCTS.match(target):
        seen.flops += library_flops(computation, product)
    elif not WITHOUT_PRODUCTS.match(target):
        seen.kernels.append(target)
