"""Optimized HLO text as computations and instructions. Only the heads of lines are read here: a line's
operands and attributes stay text until someone asks, since a step of a large model prints megabytes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from harness.core.errors import UserError

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][a-z0-9\-]*)\(")
_COUNT_OF_DEVICES = re.compile(r"\b(?:num_partitions|replica_count)=(\d+)")
_PARENTHESIS = re.compile(r"[()]")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
    r"|\b(?:branch_computations|called_computations)=\{([^}]*)\}"
)


@dataclass
class Instruction:
    name: str
    shape: str
    """Of its result, as written: with layout and tiling."""
    opcode: str
    rest: str
    """Of its line, from the first operand on."""

    @cached_property
    def arguments(self) -> str:
        """The text between the parentheses after the opcode."""
        depth = 1
        for match in _PARENTHESIS.finditer(self.rest):
            depth += 1 if match[0] == "(" else -1
            if not depth:
                return self.rest[: match.start()]
        return self.rest

    @cached_property
    def operands(self) -> list[str]:
        """Names; an operand may be written with its shape or without."""
        return _OPERAND.findall(self.arguments)

    @cached_property
    def attributes(self) -> str:
        return self.rest[len(self.arguments) + 1 :]

    @cached_property
    def called(self) -> list[str]:
        """Names of computations, in the order of writing."""
        found = []
        for one, several in _CALLED.findall(self.attributes):
            found += [one] if one else [name.strip(" %") for name in several.split(",") if name.strip()]
        return found

    def numbers(self, attribute: str) -> list[int]:
        """Of an attribute like `lhs_contracting_dims={1,2}`; none where it is not written."""
        found = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", self.attributes)
        return [int(digits) for digits in found[1].split(",") if digits] if found else []

    def word(self, attribute: str) -> str:
        """Of an attribute like `dim_labels=bf_io->bf`; empty where it is not written."""
        found = re.search(rf'\b{attribute}="?([^\s,"]+)', self.attributes)
        return found[1] if found else ""


@dataclass
class Computation:
    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""

    def operand(self, instruction: Instruction, position: int) -> Instruction:
        return self.instructions[instruction.operands[position]]


@dataclass
class Module:
    """One partition's program."""

    computations: dict[str, Computation]
    entry: Computation
    devices: int
    """Partitions times replicas."""

    def part(self, loop: Instruction, attribute: str) -> Computation:
        """The `body` or the `condition` of a `while`."""
        return self.computations[loop.word(attribute).lstrip("%")]


def parse(text: str) -> Module:
    """Raises UserError where the text holds no entry computation."""
    computations: dict[str, Computation] = {}
    current = entry = None
    devices = 1
    for line in text.splitlines():
        if line[:1] in (" ", "\t"):
            if current is not None and (found := _INSTRUCTION.match(line)):
                _add(current, found, line)
        elif line.startswith("HloModule"):
            for count in _COUNT_OF_DEVICES.findall(line):
                devices *= int(count)
        elif line.endswith("{") and (found := _COMPUTATION.match(line)):
            current = computations[found[2]] = Computation(found[2])
            entry = current if found[1] else entry
    if entry is None:
        raise UserError("the compiler's text holds no ENTRY computation: it is no HLO that can be counted")
    return Module(computations, entry, devices)


def _add(computation: Computation, found: re.Match[str], line: str) -> None:
    root, name, shape, opcode = found.groups()
    computation.instructions[name] = Instruction(name, shape, opcode, line[found.end() :])
    if root:
        computation.root = name
