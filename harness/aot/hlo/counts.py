"""The walk over a program: fusions, calls, branches and loops, each counted as often as it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from harness.aot.hlo.collectives import COLLECTIVES, bytes_received, continued_collectives
from harness.aot.hlo.loops import loop_frame, trip_count
from harness.aot.hlo.products import LIBRARY_PRODUCTS, convolution_flops, dot_flops, library_flops
from harness.aot.hlo.scalars import Frame
from harness.aot.hlo.text import Computation, Instruction, Module, num_bytes, parse_hlo

NUM_LARGEST = 12
"""Number of transfers listed by name."""

KERNELS_WITHOUT_PRODUCTS = re.compile(r"AllocateBuffer|AssumeGather|AsyncCollective|Sharding|TopK|__cub\$")
"""Targets of custom calls without matrix products: buffers, annotations, sorting."""

_PRODUCTS = ("dot", "scaled-dot", "ragged-dot", "convolution", "custom-call")
_CALLERS = ("fusion", "call", "async", "while", "conditional")


@dataclass(frozen=True)
class Transfer:
    """Collective operation in the text."""

    name: str
    kind: str
    bytes: float
    """Bytes that one device receives per execution."""
    times: float
    """Number of executions in a step."""

    @property
    def total(self) -> float:
        """Bytes that one device receives in a step."""
        return self.bytes * self.times


@dataclass(frozen=True)
class HloCounts:
    """FLOPs and traffic of one device in one step, loops times their trip counts."""

    dot_flops: float
    """FLOPs of all matrix products, 2 per multiply-add. Products that the compiler rewrote as sums of
    elementwise products, as it does with vectors, are left out."""
    collective_bytes: dict[str, float]
    """Received bytes by kind, in the convention of `harness.aot.hlo.collectives`."""
    unknown_loops: tuple[str, ...] = ()
    """Loops with products or collectives but no known trip count, counted as one iteration."""
    unread_kernels: tuple[str, ...] = ()
    """Custom-call targets without text, and product opcodes, whose FLOPs are not in `dot_flops`."""
    largest: tuple[Transfer, ...] = ()
    """Collectives with the most bytes, at most NUM_LARGEST."""


def read_hlo(text: str) -> HloCounts:
    """Count FLOPs and traffic in the optimized HLO text of one partition, from a CPU, GPU or TPU compiler.

    A conditional counts as its branch with the most FLOPs, and on a tie the one with the most bytes. Raises
    UserError if the text is not HLO, or has a spelling whose number would be wrong.
    """
    module = parse_hlo(text)
    totals = _Counter(module).count(Frame(module, module.entry, lambda number, path: None))
    bytes_by_kind: dict[str, float] = {}
    for transfer in totals.transfers:
        bytes_by_kind[transfer.kind] = bytes_by_kind.get(transfer.kind, 0.0) + transfer.total
    return HloCounts(
        dot_flops=totals.flops,
        collective_bytes=bytes_by_kind,
        unknown_loops=tuple(dict.fromkeys(totals.loops)),
        unread_kernels=tuple(sorted(set(totals.kernels))),
        largest=tuple(sorted(totals.transfers, key=lambda transfer: -transfer.total)[:NUM_LARGEST]),
    )


@dataclass
class _Totals:
    """FLOPs, transfers and gaps of a part of the program that runs once."""

    flops: float = 0.0
    transfers: list[Transfer] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)

    def add(self, part: _Totals, times: int = 1) -> None:
        self.flops += times * part.flops
        self.transfers += [replace(transfer, times=times * transfer.times) for transfer in part.transfers]
        self.loops += part.loops
        self.kernels += part.kernels

    @property
    def cost(self) -> tuple[float, float]:
        return self.flops, sum(transfer.total for transfer in self.transfers)


class _Counter:
    def __init__(self, module: Module):
        self.module = module
        self._continued = continued_collectives(module)
        self._cost_cache: dict[str, bool] = {}

    def count(self, frame: Frame) -> _Totals:
        """Count one execution of a computation."""
        totals = _Totals()
        if self.has_cost(frame.computation):
            for instruction in frame.computation.instructions.values():
                self._count_instruction(frame, instruction, totals)
        return totals

    def has_cost(self, computation: Computation) -> bool:
        """Return True if a computation, or one that it calls, has anything to count. Most have not."""
        name = computation.name
        if name not in self._cost_cache:
            self._cost_cache[name] = any(map(self._instruction_has_cost, computation.instructions.values()))
        return self._cost_cache[name]

    def _instruction_has_cost(self, instruction: Instruction) -> bool:
        opcode = instruction.opcode.removesuffix("-start")
        if opcode in _PRODUCTS or opcode in COLLECTIVES:
            return True
        callees = instruction.callees if opcode in _CALLERS else ()
        return any(self.has_cost(self.module.computations[name]) for name in callees)

    def _count_instruction(self, frame: Frame, instruction: Instruction, totals: _Totals) -> None:
        """Add an instruction to `totals`. An asynchronous operation counts at its start, not at its done."""
        opcode = instruction.opcode.removesuffix("-start")
        if instruction.name in self._continued:
            return
        if opcode in COLLECTIVES:
            moved_bytes = bytes_received(self.module, frame.computation, instruction, opcode)
            totals.transfers.append(Transfer(instruction.name, opcode, moved_bytes, 1))
        elif opcode in _PRODUCTS:
            _count_product(frame.computation, instruction, opcode, totals)
        elif opcode == "while":
            self._count_loop(frame, instruction, totals)
        elif opcode == "conditional":
            self._count_conditional(frame, instruction, totals)
        elif opcode in _CALLERS:
            for name in instruction.callees:
                self._count_call(frame, instruction, name, totals)

    def _count_loop(self, frame: Frame, loop: Instruction, totals: _Totals) -> None:
        body, condition = (self.count(loop_frame(frame, loop, part)) for part in ("body", "condition"))
        if body == condition == _Totals():
            return
        trips = trip_count(frame, loop)
        if trips is None:
            totals.loops.append(loop.name)
            trips = 1
        totals.add(body, trips)
        totals.add(condition, trips + 1)

    def _count_conditional(self, frame: Frame, conditional: Instruction, totals: _Totals) -> None:
        def branch(name: str, operand: str) -> _Totals:
            computation = self.module.computations[name]
            return self.count(Frame(self.module, computation, lambda _, path: frame.value(operand, path)))

        branches = zip(conditional.callees, conditional.operands[1:], strict=True)
        totals.add(max((branch(*choice) for choice in branches), key=lambda candidate: candidate.cost))

    def _count_call(self, frame: Frame, caller: Instruction, name: str, totals: _Totals) -> None:
        callee = frame.callee(caller, name)
        call_totals = self.count(callee)
        if _is_reduce_scatter(callee.computation, caller):
            call_totals.transfers = [
                replace(t, kind="reduce-scatter", bytes=t.bytes / 2) if t.kind == "all-reduce" else t
                for t in call_totals.transfers
            ]
        totals.add(call_totals)


def _is_reduce_scatter(fused: Computation, fusion: Instruction) -> bool:
    """Return True if a fusion is a TPU's form of a reduce-scatter: an all-reduce and slices of its result."""
    ops = fused.instructions.values()
    if fusion.opcode != "fusion" or not any(op.opcode == "dynamic-slice" for op in ops):
        return False
    reduced = [op.shape for op in ops if op.opcode == "all-reduce"]
    return bool(reduced) and num_bytes(fusion.shape) < sum(map(num_bytes, reduced))


def _count_product(computation: Computation, product: Instruction, opcode: str, totals: _Totals) -> None:
    """Add the FLOPs of an operation of `_PRODUCTS`, or the name of a kernel that cannot be read."""
    target = product.text_value("custom_call_target") or opcode
    if opcode == "dot":
        totals.flops += dot_flops(computation, product)
    elif opcode == "convolution":
        totals.flops += convolution_flops(computation, product)
    elif LIBRARY_PRODUCTS.match(target):
        totals.flops += library_flops(computation, product)
    elif not KERNELS_WITHOUT_PRODUCTS.match(target):
        totals.kernels.append(target)
