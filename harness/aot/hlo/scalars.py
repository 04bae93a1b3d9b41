"""Evaluation of a program's integer scalars, such as loop counters. Every other value is None."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from harness.aot.hlo.text import Computation, Instruction, Module, arrays, element_bits

TuplePath = tuple[int, ...]
"""Indices into a nested tuple; empty for the value itself."""


@dataclass(frozen=True)
class LoopInput:
    """Symbolic value: the loop state at this path when the body is entered."""

    path: TuplePath


Value = int | LoopInput | None
Arguments = Callable[[int, TuplePath], Value]
"""(number of a computation's parameter, path) -> its value."""

_COPIES = ("copy", "copy-start", "copy-done", "optimization-barrier")
_IDENTITIES = (*_COPIES, "bitcast", "broadcast", "convert", "reshape")
"""Opcodes that return their first operand's value. For an array, the number is that of every element."""

_BINARY: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "maximum": max,
    "minimum": min,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
}
_COMPARISONS = {name.upper(): getattr(operator, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")}
_CONSTANT = re.compile(r"(?:(-?\d+)|true|false)$")


class Frame:
    """A computation with the arguments of its caller."""

    def __init__(self, module: Module, computation: Computation, arguments: Arguments):
        self.module, self.computation, self.arguments = module, computation, arguments
        self._values: dict[tuple[str, TuplePath], Value] = {}

    def result(self, path: TuplePath = ()) -> Value:
        """Return the value of the root instruction at a path."""
        return self.value(self.computation.root, path)

    def value(self, name: str, path: TuplePath = ()) -> Value:
        """Return the value of an instruction at a path, computed once."""
        if (name, path) not in self._values:
            self._values[name, path] = self._evaluate(self.computation.instructions[name], path)
        return self._values[name, path]

    def callee(self, instruction: Instruction, computation: str) -> Frame:
        """Return the frame of a computation that a fusion or call of this one runs."""
        operands, target = instruction.operands, self.module.computations[computation]
        return Frame(self.module, target, lambda number, path: self.value(operands[number], path))

    def _evaluate(self, instruction: Instruction, path: TuplePath) -> Value:
        opcode, operands = instruction.opcode, instruction.operands
        if opcode == "parameter":
            return self.arguments(int(instruction.arguments), path)
        if opcode == "constant":
            match = _CONSTANT.match(instruction.arguments)
            return int(match[1] or match[0] == "true") if match else None
        if opcode == "get-tuple-element":
            return self.value(operands[0], (int(instruction.text_value("index")), *path))
        if opcode == "tuple":
            return self.value(operands[path[0]], path[1:]) if path else None
        if opcode in _IDENTITIES:
            return self.value(operands[0], path)
        if opcode in ("fusion", "call"):
            return self.callee(instruction, instruction.callees[0]).result(path)
        if opcode == "while":
            return self.value(operands[0], path) if self.is_invariant(instruction, path) else None
        return self._arithmetic(instruction)

    def is_invariant(self, loop: Instruction, path: TuplePath) -> bool:
        """Return True if the body of a `while` leaves the loop's state unchanged at a path."""
        body = Frame(self.module, self.module.loop_part(loop, "body"), lambda _, entry: LoopInput(entry))
        return body.result(path) == LoopInput(path)

    def _arithmetic(self, instruction: Instruction) -> int | None:
        """Evaluate arithmetic. Every operand is evaluated, needed or not, so that a loop's counter depends on
        the same parts of its state in each iteration."""
        opcode = instruction.opcode
        if opcode not in _BINARY and opcode not in ("compare", "select", "not", "negate"):
            return None
        values = [value for name in instruction.operands if isinstance(value := self.value(name), int)]
        if len(values) < len(instruction.operands):
            return None
        if opcode == "compare":
            return int(_COMPARISONS[instruction.text_value("direction")](*values))
        if opcode == "select":
            return values[1] if values[0] else values[2]
        if opcode in _BINARY:
            return _wrap(_BINARY[opcode](*values), instruction.shape)
        return _wrap(-values[0] if opcode == "negate" else ~values[0], instruction.shape)


def _wrap(number: int, shape: str) -> int:
    """Wrap a number to the range of the element type of `shape`."""
    element = arrays(shape)[0][0]
    width = 1 if element == "pred" else element_bits(element)
    number %= 1 << width
    return number - (1 << width) if element[0] == "s" and number >> (width - 1) else number
