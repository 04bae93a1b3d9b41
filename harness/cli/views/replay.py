"""Result of `harness verify` as text or JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.cli.json_output.json_text import json_text
from harness.compare.checkpoints.replay_check import EvaluationCheck, Mismatch, ReplayResult, StateCheck
from harness.compare.results.to_json import to_json
from harness.core.number_format import plain_text
from harness.records.run.environment import EnvironmentChange

NAMED, LONGEST = 3, 160
"""Number of differing arrays that are named, and letters of a value that are shown."""
RECORDED = "code, config, data, devices, processor, XLA flags, package versions"
"""Everything that a replay compares besides the numbers."""
PLAIN_NAMES = {
    "code": "the code (hash)",
    "config": "config.yaml (hash)",
    "platform": "the platform",
    "kind": "the kind of device",
    "devices": "the number of devices",
    "process devices": "the number of devices of a process",
    "cores": "the number of processor cores",
    "machine": "the processor architecture",
    "features": "processor features",
    "flags": "XLA_FLAGS",
    "collectives": "the library of CPU collectives",
}
"""Words for the properties of an environment; a package or a variable keeps its name."""


def replay_text(replay: ReplayResult, *, as_json: bool) -> str:
    """Return the result of a replay as a few lines of text, or as JSON."""
    if as_json:
        return json_text("verify", to_json(replay) | {"same": replay.same})
    return "\n".join(plain_text(line) for line in _lines(replay))


def _lines(replay: ReplayResult) -> Iterator[str]:
    start = f"the checkpoint at step {replay.first}" if replay.first else "its start"
    heading = f"{replay.name}: replayed steps {replay.first + 1} to {replay.last} from {start}"
    yield f"{heading}: {replay.equal} of {replay.steps} bitwise equal ({', '.join(replay.columns)})."
    if replay.parting is not None:
        yield f"{_parting_text(replay.parting)} The loss differs by at most {replay.largest:.3g}."
    yield _evaluation_text(replay.evaluations)
    yield from map(_state_text, replay.states)
    if replay.changes:
        yield f"Different from its training: {'; '.join(map(_change_text, replay.changes))}."
    elif not replay.same:
        yield f"Everything that it recorded is as it was: {RECORDED}."
    if replay.unrecorded_conditions:
        yield f"Not recorded, so they may differ: {', '.join(replay.unrecorded_conditions)}."
    yield from replay.notes


def _evaluation_text(check: EvaluationCheck) -> str:
    if not check.steps and check.parting is None:
        return "No evaluation was recorded at these steps, so none was replayed."
    steps = ", ".join(map(str, check.steps))
    equal = f"{check.equal} of {len(check.steps)} bitwise equal ({', '.join(check.columns)})"
    sentence = f"Evaluation{'s' * (len(check.steps) > 1)} at step {steps}: {equal}."
    if check.parting is None:
        return sentence
    return f"{sentence} {_parting_text(check.parting)} The loss differs by at most {check.largest:.3g}."


def _parting_text(parting: Mismatch) -> str:
    place = f"{parting.column} on {parting.domain}" if parting.domain else parting.column
    gap = abs(parting.replayed - parting.recorded)
    amount = f" (by {gap:.3g})" if math.isfinite(gap) else ""
    old, new = map(_value_text, (parting.recorded, parting.replayed))
    return f"The first difference is at step {parting.step}: {place} {old} on disk, {new} now{amount}."


def _value_text(value: float) -> str:
    return repr(value) if value == value else "not a number or no row"


def _change_text(change: EnvironmentChange) -> str:
    name = PLAIN_NAMES.get(change.what, change.what)
    return f"{name} {_truncated(change.then)} then, {_truncated(change.now)} now"


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
