"""How often a `while` runs: as the compiler noted, or else by running the loop's own counter."""

from __future__ import annotations

import re
from collections.abc import Callable

from harness.aot.hlo.scalars import Frame, Path, Value
from harness.aot.hlo.text import Instruction

LONGEST = 1 << 16
"""Turns after which a loop without a note counts as one whose length cannot be told."""

_NOTED = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


def trips(frame: Frame, loop: Instruction) -> int | None:
    """How often the body runs where the loop is entered once from `frame`; None where the text does not say.

    CPU and GPU note it; TPU does not. Then the parts of the state on which the condition depends are carried
    from turn to turn as the body changes them: whatever the step, the direction and the plumbing.
    """
    if found := _NOTED.search(loop.attributes):
        return int(found[1])
    try:
        return _run(frame, loop)
    except RecursionError:  # Numbers that come a longer way than anyone can follow.
        return None


def _run(frame: Frame, loop: Instruction) -> int | None:
    module = frame.module
    condition, body = module.part(loop, "condition"), module.part(loop, "body")
    state = _State(lambda path: frame.value(loop.operands[0], path))
    for turns in range(LONGEST):
        runs = Frame(module, condition, state.argument).result()
        if not isinstance(runs, int):
            return None
        if not runs:
            return turns
        before, state = state, state.following(Frame(module, body, state.argument))
        if state == before:
            return None
    return None


def inside(frame: Frame, loop: Instruction, part: str) -> Frame:
    """The `body` or `condition` of a loop in any of its turns: it knows of the state what no turn changes."""

    def argument(_: int, path: Path) -> Value:
        return frame.value(loop.operands[0], path) if frame.stays(loop, path) else None

    return Frame(frame.module, frame.module.part(loop, part), argument)


class _State(dict[Path, Value]):
    """The parts of a loop's state that were asked for, before its first turn read from the text."""

    def __init__(self, before: Callable[[Path], Value]):
        self.before = before

    def __missing__(self, path: Path) -> Value:
        self[path] = self.before(path)
        return self[path]

    def argument(self, _: int, path: Path) -> Value:
        return self[path]

    def following(self, body: Frame) -> _State:
        """The same parts after a turn, and those on which they depend."""
        after = _State(self.before)
        while missing := self.keys() - after.keys():
            for path in missing:
                after[path] = body.result(path)
        return after
