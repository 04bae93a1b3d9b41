"""Parser of optimized HLO text into computations and instructions, and of the shapes in it.

A line's operands and attributes are parsed on first use, because the text of a large model's step has
megabytes. A shape is written as in `(bf16[8,128]{1,0:T(8,128)(2,1)}, u32[])`.
"""

from __future__ import annotations

import math
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
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,<=]*)\]")
_BITS = re.compile(r"(?:bf|[sucf])(\d+)")
_UNUSUAL_BITS = {"pred": 8, "token": 0, "opaque": 0}


@dataclass
class Instruction:
    """Line of a computation."""

    name: str
    shape: str
    """Shape of the result as written, with layout and tiling."""
    opcode: str
    tail: str
    """Text of the line from the first operand on."""

    @cached_property
    def arguments(self) -> str:
        """The text between the parentheses after the opcode."""
        depth = 1
        for match in _PARENTHESIS.finditer(self.tail):
            depth += 1 if match[0] == "(" else -1
            if not depth:
                return self.tail[: match.start()]
        return self.tail

    @cached_property
    def operands(self) -> list[str]:
        """Names of the operands, which may be written with or without their shapes."""
        return _OPERAND.findall(self.arguments)

    @cached_property
    def attributes(self) -> str:
        """The text after the operands."""
        return self.tail[len(self.arguments) + 1 :]

    @cached_property
    def callees(self) -> list[str]:
        """Names of the computations that it calls, in the order written."""
        names = ",".join("".join(pair) for pair in _CALLED.findall(self.attributes))
        return [name.strip(" %") for name in names.split(",") if name.strip()]

    def int_list(self, attribute: str) -> list[int]:
        """Parse an attribute like `lhs_contracting_dims={1,2}`; empty if it is absent."""
        match = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", self.attributes)
        return [int(digits) for digits in match[1].split(",") if digits] if match else []

    def text_value(self, attribute: str) -> str:
        """Return the value of an attribute like `dim_labels=bf_io->bf`; empty if it is absent."""
        match = re.search(rf'\b{attribute}="?([^\s,"]+)', self.attributes)
        return match[1] if match else ""


@dataclass
class Computation:
    """A named list of instructions. `root` is the name of the one that it returns."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""

    def operand(self, instruction: Instruction, position: int) -> Instruction:
        """Return the instruction that an operand names."""
        return self.instructions[instruction.operands[position]]


@dataclass
class Module:
    """Program of one partition."""

    computations: dict[str, Computation]
    entry: Computation
    devices: int
    """Number of partitions times replicas."""

    def loop_part(self, loop: Instruction, attribute: str) -> Computation:
        """Return the `body` or the `condition` of a `while`."""
        return self.computations[loop.text_value(attribute).lstrip("%")]


def parse_hlo(text: str) -> Module:
    """Parse HLO text. Raises UserError if it has no ENTRY computation."""
    computations: dict[str, Computation] = {}
    current = entry = None
    devices = 1
    for line in text.splitlines():
        if line[:1] in (" ", "\t"):
            if current is not None and (match := _INSTRUCTION.match(line)):
                root, name, shape, opcode = match.groups()
                current.instructions[name] = Instruction(name, shape, opcode, line[match.end() :])
                current.root = name if root else current.root
        elif line.startswith("HloModule"):
            for count in _COUNT_OF_DEVICES.findall(line):
                devices *= int(count)
        elif line.endswith("{") and (match := _COMPUTATION.match(line)):
            current = computations[match[2]] = Computation(match[2])
            entry = current if match[1] else entry
    if entry is None:
        raise UserError("the compiler's text has no ENTRY computation, so it is not HLO that can be counted")
    return Module(computations, entry, devices)


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """Return element type and dimensions of each array of a shape. A dynamic dimension gives its bound."""
    return [
        (element, tuple(int(size.lstrip("<=")) for size in sizes.split(",") if size))
        for element, sizes in _ARRAY.findall(shape)
    ]


def dimensions(shape: str) -> tuple[int, ...]:
    """Return the dimensions of an array, or of the first array of a tuple."""
    return arrays(shape)[0][1]


def num_bytes(shape: str) -> float:
    """Return the bytes of all arrays of a shape, without padding: half a byte for 4 bits, one for `pred`."""
    return sum(math.prod(sizes) * element_bits(element) / 8 for element, sizes in arrays(shape))


def element_bits(element: str) -> int:
    """Return the bits of an element type such as `bf16`, `f8e4m3fn`, `s4`. Raises UserError if unknown."""
    if element in _UNUSUAL_BITS:
        return _UNUSUAL_BITS[element]
    if match := _BITS.match(element):
        return int(match[1])
    raise UserError(f"the compiler's text has elements of type '{element}', whose size is unknown")
