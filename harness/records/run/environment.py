"""What besides config, code and data decides the bits of a run: as the process that trained it saw it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

STEP = "step"


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

    what: str
    then: str
    now: str


def append_entry(known: Sequence[dict[str, Any]], step: int, now: Environment) -> list[dict[str, Any]]:
    """The record of a run that goes on from a step: each entry holds from its `step` on."""
    kept = [entry for entry in known if entry[STEP] < step]
    if kept and parse_environment(kept[-1]) == now:
        return kept
    return [*kept, {STEP: step} | dataclasses.asdict(now)]


def environment_at(known: Sequence[dict[str, Any]], step: int) -> Environment | None:
    """What a run had from a step on; None where its record does not say."""
    holding = [entry for entry in known if isinstance(entry, dict) and entry.get(STEP, step + 1) <= step]
    return parse_environment(holding[-1]) if holding else None


def parse_environment(entry: dict[str, Any]) -> Environment | None:
    """None for an entry of another layout."""
    try:
        return Environment(**{key: value for key, value in entry.items() if key != STEP})
    except TypeError:
        return None


def environment_changes(then: Environment, now: Environment) -> list[EnvironmentChange]:
    """In the order of the fields; of versions and flags what is not in both."""
    found = []
    for field in dataclasses.fields(Environment):
        one, other = getattr(then, field.name), getattr(now, field.name)
        if one == other:
            continue
        if isinstance(one, dict):
            names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
            found += [
                EnvironmentChange(name, one.get(name, "absent"), other.get(name, "absent")) for name in names
            ]
        elif field.name in ("features", "flags"):
            found.append(EnvironmentChange(field.name, _without(one, other), _without(other, one)))
        else:
            found.append(EnvironmentChange(field.name.replace("_", " "), str(one), str(other)))
    return found


def _without(words: str, others: str) -> str:
    """The words that the others have not; where only their order differs, all."""
    left = [word for word in words.split() if word not in others.split()]
    if left or not set(others.split()) <= set(words.split()):
        return " ".join(left) or "none"
    return words
