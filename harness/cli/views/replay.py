"""What `harness verify` says, in a few lines."""

from __future__ import annotations

import json
from collections.abc import Iterator

from harness.compare.checkpoints.replay_check import ReplayResult, StateCheck
from harness.compare.results.to_json import to_json
from harness.core.number_format import plain_text
from harness.records.run.environment import EnvironmentChange

NAMED, LONGEST = 3, 160
"""Arrays that are named, and letters of a value that are shown."""


def replay_text(found: ReplayResult, *, as_json: bool) -> str:
    if as_json:
        content = to_json(found) | {"same": found.same}
        return json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    return "\n".join(plain_text(line) for line in _lines(found))


def _lines(found: ReplayResult) -> Iterator[str]:
    start = f"the checkpoint at step {found.first}" if found.first else "its start"
    heading = f"{found.name}: steps {found.first + 1} to {found.last} made again from {start}"
    yield f"{heading}: {found.equal} of {found.steps} bitwise equal ({', '.join(found.columns)})."
    if (parting := found.parting) is not None:
        yield (
            f"The first that differs is step {parting.step}: {parting.column} {parting.recorded!r} on disk, "
            f"{parting.replayed!r} now (by {abs(parting.replayed - parting.recorded):.3g}); the loss is off "
            f"by {found.largest:.3g} at most."
        )
    yield from map(_state_text, found.states)
    if found.changes:
        yield f"Otherwise than when it was trained: {'; '.join(map(_change_text, found.changes))}."
    elif not found.same:
        yield "As far as its record tells, nothing around it is otherwise than when it was trained."
    yield from found.notes


def _state_text(state: StateCheck) -> str:
    read = "the same examples were read" if state.same_examples else "other examples were read"
    equal = state.arrays - len(state.differing)
    sentence = f"State at step {state.step}: {equal} of {state.arrays} arrays bitwise equal; {read}."
    if not state.differing:
        return sentence
    remainder = f" and {len(state.differing) - NAMED} more" if len(state.differing) > NAMED else ""
    return f"{sentence} Off by {state.largest:.3g} at most: {', '.join(state.differing[:NAMED])}{remainder}."


def _change_text(change: EnvironmentChange) -> str:
    return f"{change.what} {_truncated(change.then)} then, {_truncated(change.now)} now"


def _truncated(value: str) -> str:
    return value if len(value) <= LONGEST else value[:LONGEST] + "..."
