"""Result of `harness verify` as text or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator

from harness.compare.checkpoints.replay_check import ReplayResult, StateCheck
from harness.compare.results.to_json import to_json
from harness.core.number_format import plain_text

NAMED, LONGEST = 3, 160
"""Number of differing arrays that are named, and letters of a value that are shown."""


def replay_text(replay: ReplayResult, *, as_json: bool) -> str:
    """Return the result of a replay as a few lines of text, or as JSON."""
    if as_json:
        content = to_json(replay) | {"same": replay.same}
        return json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    return "\n".join(plain_text(line) for line in _lines(replay))


def _lines(replay: ReplayResult) -> Iterator[str]:
    start = f"the checkpoint at step {replay.first}" if replay.first else "its start"
    heading = f"{replay.name}: replayed steps {replay.first + 1} to {replay.last} from {start}"
    yield f"{heading}: {replay.equal} of {replay.steps} bitwise equal ({', '.join(replay.columns)})."
    if (parting := replay.parting) is not None:
        yield (
            f"The first difference is at step {parting.step}: {parting.column} {parting.recorded!r} on disk, "
            f"{parting.replayed!r} now (by {abs(parting.replayed - parting.recorded):.3g}). The loss differs "
            f"by at most {replay.largest:.3g}."
        )
    yield from map(_state_text, replay.states)
    if replay.changes:
        changes = (f"{c.what} {_truncated(c.then)} then, {_truncated(c.now)} now" for c in replay.changes)
        yield f"Changed since it was trained: {'; '.join(changes)}."
    elif not replay.same:
        yield "Its recorded environment has not changed since it was trained."
    yield from replay.notes


def _state_text(state: StateCheck) -> str:
    read = f"{'the same' if state.same_examples else 'other'} examples were read"
    equal = state.arrays - len(state.differing)
    sentence = f"State at step {state.step}: {equal} of {state.arrays} arrays bitwise equal; {read}."
    if not state.differing:
        return sentence
    names = ", ".join(state.differing[:NAMED])
    if len(state.differing) > NAMED:
        names += f" and {len(state.differing) - NAMED} more"
    return f"{sentence} They differ by at most {state.largest:.3g}: {names}."


def _truncated(value: str) -> str:
    return value if len(value) <= LONGEST else value[:LONGEST] + "..."
