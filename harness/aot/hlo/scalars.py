"""Whole numbers that a program's text tells: what a loop counts with. Everything else is None."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from harness.aot.hlo.shapes import arrays, bits
from harness.aot.hlo.text import Computation, Instruction, Module

Path = tuple[int, ...]
"""Indices into a nested tuple; empty: the value itself."""


@dataclass(frozen=True)
class Carried:
    """What stood at this path of a loop's state when its body was entered."""

    path: Path


Value = int | Carried | None
Arguments = Callable[[int, Path], Value]
"""The value of a computation's parameter, by its number."""

_MOVED = ("copy", "copy-start", "copy-done", "optimization-barrier")
_SAME = (*_MOVED, "bitcast", "broadcast", "convert", "reshape")
"""The value of their first operand; of an array it is meant that all elements are this number."""

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
_COMPARED = {name.upper(): getattr(operator, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")}
_CONSTANT = re.compile(r"(?:(-?\d+)|true|false)$")


class Frame:
    """A computation together with what its caller gave it."""

    def __init__(self, module: Module, computation: Computation, arguments: Arguments):
        self.module, self.computation, self.arguments = module, computation, arguments
        self._known: dict[tuple[str, Path], Value] = {}

    def result(self, path: Path = ()) -> Value:
        return self.value(self.computation.root, path)

    def value(self, name: str, path: Path = ()) -> Value:
        if (name, path) not in self._known:
            self._known[name, path] = self._evaluated(self.computation.instructions[name], path)
        return self._known[name, path]

    def called(self, instruction: Instruction, computation: str) -> Frame:
        """Of a fusion or call, entered from here."""
        operands = instruction.operands
        return Frame(
            self.module,
            self.module.computations[computation],
            lambda number, path: self.value(operands[number], path),
        )

    def _evaluated(self, instruction: Instruction, path: Path) -> Value:
        opcode, operands = instruction.opcode, instruction.operands
        if opcode == "parameter":
            return self.arguments(int(instruction.arguments), path)
        if opcode == "constant":
            return _constant(instruction.arguments)
        if opcode == "get-tuple-element":
            index = int(instruction.word("index"))
            return self.value(operands[0], (index, *path))
        if opcode == "tuple":
            return self.value(operands[path[0]], path[1:]) if path else None
        if opcode in _SAME:
            return self.value(operands[0], path)
        if opcode in ("fusion", "call"):
            return self.called(instruction, instruction.called[0]).result(path)
        if opcode == "while":
            return self.value(operands[0], path) if self.stays(instruction, path) else None
        return self._computed(instruction)

    def stays(self, loop: Instruction, path: Path) -> bool:
        """Whether the body of a `while` hands on what it found at a path of the loop's state."""
        body = self.module.part(loop, "body")
        return Frame(self.module, body, lambda _, found: Carried(found)).result(path) == Carried(path)

    def _computed(self, instruction: Instruction) -> int | None:
        """Of arithmetic. All operands are asked for, needed or not: so a loop's count depends on the same
        parts of its state in each turn."""
        opcode = instruction.opcode
        if opcode not in _BINARY and opcode not in ("compare", "select", "not", "negate"):
            return None
        values = [value for name in instruction.operands if isinstance(value := self.value(name), int)]
        if len(values) < len(instruction.operands):
            return None
        if opcode == "compare":
            return int(_COMPARED[instruction.word("direction")](*values))
        if opcode == "select":
            return values[1] if values[0] else values[2]
        if opcode in _BINARY:
            return _wrapped(_BINARY[opcode](*values), instruction.shape)
        return _wrapped(-values[0] if opcode == "negate" else ~values[0], instruction.shape)


def _constant(literal: str) -> int | None:
    found = _CONSTANT.match(literal)
    if not found:
        return None
    return int(found[1]) if found[1] else int(literal == "true")


def _wrapped(number: int, shape: str) -> int:
    """As the element type of the result holds it."""
    element = arrays(shape)[0][0]
    width = 1 if element == "pred" else bits(element)
    number %= 1 << width
    return number - (1 << width) if element[0] == "s" and number >> (width - 1) else number
