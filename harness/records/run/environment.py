"""Environment of a training process: everything besides config, code and data that decides the bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.records.typed_values import fits, parse_record

STEP_KEY = "step"


@dataclass(frozen=True)
class Environment:
    """Devices, processor, flags and package versions of one training process."""

    platform: str
    """JAX platform: cpu, gpu or tpu."""
    kind: str
    """Device kind, as the vendor names it."""
    devices: int
    """Number of devices of the run."""
    process_devices: int
    """Number of devices of the process."""
    cores: int
    """Number of cores that the process may use."""
    machine: str
    """Processor architecture."""
    features: str
    """Processor features, as the operating system lists them; compiled code may use any of them."""
    flags: str
    """Value of XLA_FLAGS."""
    versions: dict[str, str]
    collectives: str = ""
    """CPU collectives of a multi-process run, such as gloo; empty for one process."""
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    """Environment variables that compilers and their libraries read, besides XLA_FLAGS."""


@dataclass(frozen=True)
class EnvironmentChange:
    """Property of the environment whose value differs from the recorded one; the fields are JSON keys."""

    what: str
    then: str
    now: str


def append_entry(entries: Sequence[dict[str, Any]], step: int, now: Environment) -> list[dict[str, Any]]:
    """Return the record of a run that continues at a step; each entry is valid from its `step` on."""
    earlier = [entry for entry in entries if entry[STEP_KEY] < step]
    if earlier and parse_environment(earlier[-1]) == now:
        return earlier
    return [*earlier, {STEP_KEY: step} | dataclasses.asdict(now)]


def environment_at(entries: Sequence[dict[str, Any]], step: int) -> Environment | None:
    """Return the environment of a run from a step on; None if it was not recorded."""
    valid = [item for item in entries if _has_step(item) and item[STEP_KEY] <= step]
    return parse_environment(valid[-1]) if valid else None


def parse_environment(entry: dict[str, Any]) -> Environment | None:
    """Convert an entry of the record; None if its keys are of another version."""
    content = {key: value for key, value in entry.items() if key != STEP_KEY}
    return parse_record(Environment, content) if _has_step(entry) else None


def _has_step(entry: Any) -> bool:
    return isinstance(entry, dict) and fits(entry.get(STEP_KEY), int)


def environment_changes(recorded: Environment, current: Environment) -> list[EnvironmentChange]:
    """Return the differences in field order; of versions, features and flags only what differs."""
    changes = []
    for field in dataclasses.fields(Environment):
        before, after = getattr(recorded, field.name), getattr(current, field.name)
        if before == after:
            continue
        if isinstance(before, dict):
            for name in sorted(before.keys() | after.keys()):
                old, new = before.get(name, "absent"), after.get(name, "absent")
                changes += [EnvironmentChange(name, old, new)] * (old != new)
        elif field.name in ("features", "flags"):
            old, new = _words_missing_from(before, after), _words_missing_from(after, before)
            changes.append(EnvironmentChange(field.name, old, new))
        else:
            changes.append(EnvironmentChange(field.name.replace("_", " "), str(before), str(after)))
    return changes


def _words_missing_from(words: str, other_words: str) -> str:
    """Return the words that are not in `other_words`; if only their order differs, all of them."""
    left = [word for word in words.split() if word not in other_words.split()]
    if left or not set(other_words.split()) <= set(words.split()):
        return " ".join(left) or "none"
    return words
