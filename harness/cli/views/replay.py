"""What `harness verify` says, in a few lines."""

from __future__ import annotations

import json
from collections.abc import Iterator

from harness.compare.checkpoints.replay_check import Replay, StateCheck
from harness.compare.results.to_json import to_json
from harness.core import number_format
from harness.records.run.environment import Changed

NAMED, LONGEST = 3, 160
"""Arrays that are named, and letters of a value that are shown."""


def say(found: Replay, *, as_json: bool) -> str:
    if as_json:
        content = to_json(found) | {"same": found.same}
        return json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    return "\n".join(number_format.plain_text(line) for line in _lines(found))


def _lines(found: Replay) -> Iterator[str]:
    start = f"the checkpoint at step {found.first}" if found.first else "its start"
    replayed = f"{found.name}: steps {found.first + 1} to {found.last} made again from {start}"
    yield f"{replayed}: {found.equal} of {found.steps} bitwise equal ({', '.join(found.columns)})."
    if (parting := found.parting) is not None:
        yield (
            f"The first that differs is step {parting.step}: {parting.column} {parting.recorded!r} on disk, "
            f"{parting.replayed!r} now (by {abs(parting.replayed - parting.recorded):.3g}); the loss is off "
            f"by {found.largest:.3g} at most."
        )
    yield from map(_state, found.states)
    if found.changes:
        yield f"Otherwise than when it was trained: {'; '.join(map(_changed, found.changes))}."
    elif not found.same:
        yield "As far as its record tells, nothing around it is otherwise than when it was trained."
    yield from found.notes


def _state(state: StateCheck) -> str:
    read = "the same examples were read" if state.same_examples else "other examples were read"
    equal = state.arrays - len(state.differing)
    said = f"State at step {state.step}: {equal} of {state.arrays} arrays bitwise equal; {read}."
    if not state.differing:
        return said
    more = f" and {len(state.differing) - NAMED} more" if len(state.differing) > NAMED else ""
    return f"{said} Off by {state.largest:.3g} at most: {', '.join(state.differing[:NAMED])}{more}."


def _changed(change: Changed) -> str:
    return f"{change.what} {_short(change.then)} then, {_short(change.now)} now"


def _short(value: str) -> str:
    return value if len(value) <= LONGEST else value[:LONGEST] + "..."
