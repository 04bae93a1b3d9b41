"""What besides config, code and data decides the bits of a run: as the process that trained it saw it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

STEP_KEY = "step"


@dataclass(frozen=True)
class Environment:
    platform: str
    """cpu, gpu, tpu."""
    kind: str
    """Of a device, as its maker calls it."""
    devices: int
    """Of the lane."""
    process_devices: int
    """Of the process that the lane was in."""
    cores: int
    """That the process was allowed."""
    machine: str
    """The processor's architecture."""
    features: str
    """What the processor can, as the operating system says: compiled code may use any of it."""
    flags: str
    """XLA_FLAGS."""
    versions: dict[str, str]
    collectives: str = ""
    """What adds up across the devices of a CPU where a run has processes; empty: a process's own."""


@dataclass(frozen=True)
class EnvironmentChange:
    """Something that was so then and is otherwise now."""

    name: str
    recorded: str
    current: str


def append_entry(entries: Sequence[dict[str, Any]], step: int, now: Environment) -> list[dict[str, Any]]:
    """The record of a run that goes on from a step: each entry holds from its `step` on."""
    earlier = [entry for entry in entries if entry[STEP_KEY] < step]
    if earlier and parse_environment(earlier[-1]) == now:
        return earlier
    return [*earlier, {STEP_KEY: step} | dataclasses.asdict(now)]


def environment_at(entries: Sequence[dict[str, Any]], step: int) -> Environment | None:
    """What a run had from a step on; None where its record does not say."""
    holding = [
        entry for entry in entries if isinstance(entry, dict) and entry.get(STEP_KEY, step + 1) <= step
    ]
    return parse_environment(holding[-1]) if holding else None


def parse_environment(entry: dict[str, Any]) -> Environment | None:
    """None for an entry of another layout."""
    try:
        return Environment(**{key: value for key, value in entry.items() if key != STEP_KEY})
    except TypeError:
        return None


def environment_changes(recorded: Environment, current: Environment) -> list[EnvironmentChange]:
    """In the order of the fields; of versions and flags what is not in both."""
    changes = []
    for field in dataclasses.fields(Environment):
        before, after = getattr(recorded, field.name), getattr(current, field.name)
        if before == after:
            continue
        if isinstance(before, dict):
            names = sorted(
                name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
            )
            changes += [
                EnvironmentChange(name, before.get(name, "absent"), after.get(name, "absent"))
                for name in names
            ]
        elif field.name in ("features", "flags"):
            changes.append(
                EnvironmentChange(
                    field.name, _words_missing_from(before, after), _words_missing_from(after, before)
                )
            )
        else:
            changes.append(EnvironmentChange(field.name.replace("_", " "), str(before), str(after)))
    return changes


def _words_missing_from(words: str, other_words: str) -> str:
    """The words that the others have not; where only their order differs, all."""
    left = [word for word in words.split() if word not in other_words.split()]
    if left or not set(other_words.split()) <= set(words.split()):
        return " ".join(left) or "none"
    return words
