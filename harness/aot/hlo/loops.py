"""Trip counts of `while` loops: the compiler's annotation, or else a simulation of the loop's counter."""

from __future__ import annotations

import re
from collections.abc import Callable

from harness.aot.hlo.scalars import Frame, TuplePath, Value
from harness.aot.hlo.text import Instruction

MAX_TRIPS = 1 << 16
"""Number of iterations after which the trip count of a loop without annotation counts as unknown."""

_KNOWN_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


def trip_count(frame: Frame, loop: Instruction) -> int | None:
    """Return how often the body runs when `frame` enters the loop once; None if the text does not tell.
    CPU and GPU compilers annotate the trip count; TPU does not. Then the state that the condition depends on
    is simulated iteration by iteration, for any step size, direction and tuple plumbing."""
    if match := _KNOWN_TRIP_COUNT.search(loop.attributes):
        return int(match[1])
    try:
        return _simulate(frame, loop)
    except RecursionError:  # The chain of values is too long to follow.
        return None


def _simulate(frame: Frame, loop: Instruction) -> int | None:
    module = frame.module
    condition, body = module.loop_part(loop, "condition"), module.loop_part(loop, "body")
    state = _LoopState(lambda path: frame.value(loop.operands[0], path))
    for trips in range(MAX_TRIPS):
        runs = Frame(module, condition, state.argument).result()
        if not isinstance(runs, int):
            return None
        if not runs:
            return trips
        before, state = state, state.next_state(Frame(module, body, state.argument))
        if state == before:
            return None
    return None


def loop_frame(frame: Frame, loop: Instruction, part: str) -> Frame:
    """Return the frame of a loop's `body` or `condition` in any iteration: only invariant state is known."""

    def argument(_: int, path: TuplePath) -> Value:
        return frame.value(loop.operands[0], path) if frame.is_invariant(loop, path) else None

    return Frame(frame.module, frame.module.loop_part(loop, part), argument)


class _LoopState(dict[TuplePath, Value]):
    """Values of a loop's state by path, each computed on demand; before the first iteration by `initial`."""

    def __init__(self, initial: Callable[[TuplePath], Value]):
        self.initial = initial

    def __missing__(self, path: TuplePath) -> Value:
        self[path] = self.initial(path)
        return self[path]

    def argument(self, _: int, path: TuplePath) -> Value:
        return self[path]

    def next_state(self, body: Frame) -> _LoopState:
        """Return the same paths after one iteration, and those that they depend on."""
        after = _LoopState(self.initial)
        while missing := self.keys() - after.keys():
            for path in missing:
                after[path] = body.result(path)
        return after
