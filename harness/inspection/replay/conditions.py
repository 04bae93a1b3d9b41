"""Conditions of a replay: code, config and environment, as they were and as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.inspection.replay.step_range import StepRange
from harness.records.run import environment
from harness.records.run.config_file import stored_config_hash
from harness.records.run.environment import STEP_KEY, EnvironmentChange
from harness.records.run.provenance import code_hash_at, code_hash_of

if TYPE_CHECKING:
    from harness.training.programs.run_programs import RunPrograms

HASH_DIGITS = 12
"""Number of digits of a hash in messages."""


def changed_conditions(step_range: StepRange, programs: RunPrograms) -> Iterator[EnvironmentChange]:
    """Yield what differs between the record of any step of the range and this replay."""
    from harness.training.programs.training_environment import current_environment

    run_ref, current = step_range.run_ref, code_hash_of(step_range.run_ref.config)
    steps = range(step_range.first, step_range.last)
    for code in dict.fromkeys(code_hash_at(run_ref.provenance.code_hash, step) for step in steps):
        if code != current:
            yield EnvironmentChange("code", code[:HASH_DIGITS], current[:HASH_DIGITS])
    recorded_hash, stored_hash = run_ref.provenance.config_hash, stored_config_hash(run_ref.run.config)
    if recorded_hash != stored_hash:
        yield EnvironmentChange("config", recorded_hash[:HASH_DIGITS], stored_hash[:HASH_DIGITS])
    now, changes = current_environment(programs.devices), []
    for step in _steps_of_entries(step_range):
        recorded = environment.environment_at(run_ref.provenance.surroundings, step)
        changes += [] if recorded is None else environment.environment_changes(recorded, now)
    yield from dict.fromkeys(changes)


def unrecorded_conditions(step_range: StepRange) -> tuple[str, ...]:
    """Name what the run did not record of its environment, as runs of earlier versions."""
    entries = step_range.run_ref.provenance.surroundings
    if any(environment.environment_at(entries, step) is None for step in _steps_of_entries(step_range)):
        return "devices", "processor", "XLA flags", "environment variables"
    if any("variables" not in entry for entry in entries):
        return ("environment variables of JAX and XLA",)
    return ()


def _steps_of_entries(step_range: StepRange) -> list[int]:
    """Return the steps of the range at which an entry of the record begins to hold."""
    entries = step_range.run_ref.provenance.surroundings
    later = (entry.get(STEP_KEY) for entry in entries if isinstance(entry, dict))
    inside = (step for step in later if isinstance(step, int) and step_range.first < step < step_range.last)
    return sorted({step_range.first, *inside})
