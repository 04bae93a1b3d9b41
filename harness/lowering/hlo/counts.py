"""The walk over a program: from its entry through fusions, calls, branches and loops, each as often as it runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from harness.lowering.hlo.collectives import KINDS, received
from harness.lowering.hlo.loops import inside, trips
from harness.lowering.hlo.products import LIBRARY_PRODUCTS, convolution_flops, dot_flops, library_flops
from harness.lowering.hlo.scalars import Frame
from harness.lowering.hlo.shapes import size
from harness.lowering.hlo.text import Computation, Instruction, Module, parse

LARGEST = 12
"""Transfers that are kept by name."""

EMPTY_CALLS = {"AllocateBuffer", "AssumeGatherIndicesInBound"}
"""Targets of custom calls that compute nothing."""


_COUNTED = frozenset(["dot", "scaled-dot", "ragged-dot", "convolution", "custom-call"])
_ENTERED = frozenset(["fusion", "call", "async", "while", "conditional"])


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
    """Received, by kind; the convention of `harness.lowering.hlo.collectives`."""
    unknown_loops: tuple[str, ...] = ()
    """Loops with products or collectives in them whose length the text does not tell: counted as one turn."""
    unread_kernels: tuple[str, ...] = ()
    """Targets of custom calls whose inside is not in the text: what they multiply is not in `dot_flops`."""
    largest: tuple[Transfer, ...] = ()
    """The collectives that move most, at most 12."""


def read_hlo(text: str) -> Counts:
    """Counts optimized HLO text of one partition, as CPU, GPU and TPU compilers of JAX print it.

    Of the branches of a conditional the one with most FLOPs counts, of equal ones that with most bytes. Raises
    UserError where the text is none, or spells something that would make a number wrong.
    """
    module = parse(text)
    seen = _Walk(module).through(Frame(module, module.entry, lambda number, path: None))
    moved = Counter[str]()
    for transfer in seen.transfers:
        moved[transfer.kind] += transfer.total
    return Counts(
        dot_flops=seen.flops,
        collective_bytes=dict(moved),
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
        if opcode in _COUNTED or opcode in KINDS:
            return True
        return opcode in _ENTERED and any(
            self.tells(self.module.computations[name]) for name in instruction.called
        )

    def _visit(self, frame: Frame, instruction: Instruction, seen: _Seen) -> None:
        opcode = instruction.opcode.removesuffix("-start")
        if opcode in KINDS:
            seen.transfers.append(self._transfer(frame.computation, instruction, opcode))
        elif opcode in _COUNTED:
            _products(frame.computation, instruction, seen)
        elif opcode == "while":
            self._loop(frame, instruction, seen)
        elif opcode == "conditional":
            branches = [self._called(frame, name) for name in instruction.called]
            seen.add(max(branches, key=lambda branch: branch.weight))
        elif opcode == "fusion":
            self._fusion(frame, instruction, seen)
        elif opcode in _ENTERED:
            for name in instruction.called:
                seen.add(self.through(frame.called(instruction, name)))

    def _called(self, frame: Frame, name: str) -> _Seen:
        return self.through(Frame(self.module, self.module.computations[name], lambda number, path: None))

    def _loop(self, frame: Frame, loop: Instruction, seen: _Seen) -> None:
        body = self.through(inside(frame, loop))
        condition = self._called(frame, loop.word("condition").lstrip("%"))
        if not (body.weight > (0, 0) or condition.weight > (0, 0) or body.kernels):
            return
        turns = trips(frame, loop)
        if turns is None:
            seen.loops.append(loop.name)
            turns = 1
        seen.add(body, turns)
        seen.add(condition, turns + 1)

    def _transfer(self, computation: Computation, collective: Instruction, kind: str) -> Transfer:
        return Transfer(collective.name, kind, received(self.module, computation, collective, kind), 1)

    def _fusion(self, frame: Frame, fusion: Instruction, seen: _Seen) -> None:
        """A TPU writes a reduce-scatter as a fusion of an all-reduce and the slices that are kept of it."""
        fused = frame.called(fusion, fusion.called[0])
        inside = self.through(fused)
        if _keeps_slices(fused.computation, fusion):
            inside.transfers = [_halved(found) for found in inside.transfers]
        seen.add(inside)


def _keeps_slices(fused: Computation, fusion: Instruction) -> bool:
    reduced = [found for found in fused.instructions.values() if found.opcode == "all-reduce"]
    sliced = any(found.opcode == "dynamic-slice" for found in fused.instructions.values())
    return sliced and bool(reduced) and size(fusion.shape) < sum(size(found.shape) for found in reduced)


def _halved(transfer: Transfer) -> Transfer:
    """A reduce-scatter in place of an all-reduce: without the second half, which gathers again."""
    if transfer.kind != "all-reduce":
        return transfer
    return replace(transfer, kind="reduce-scatter", bytes=transfer.bytes / 2)


def _products(computation: Computation, instruction: Instruction, seen: _Seen) -> None:
    """Adds what an instruction of `_COUNTED` multiplies, or the name of a kernel that nobody can look into."""
    if instruction.opcode in ("dot", "scaled-dot"):
        seen.flops += dot_flops(computation, instruction)
    elif instruction.opcode == "convolution":
        seen.flops += convolution_flops(computation, instruction)
    elif LIBRARY_PRODUCTS.match(target := instruction.word("custom_call_target") or instruction.opcode):
        seen.flops += library_flops(computation, instruction)
    elif target not in EMPTY_CALLS:
        seen.kernels.append(target)
