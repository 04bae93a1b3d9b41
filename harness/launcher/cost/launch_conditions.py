"""Conditions of a launch on this machine: its speed and load, what is still to be compiled and tokenised, and
the seconds that a sweep takes besides its runs."""

from __future__ import annotations

import os
from collections.abc import Sequence

from harness.core.host.host_load import OtherLoad
from harness.launcher.cost import reference_machine
from harness.launcher.cost.machine_speed import machine_speed, share_of_a_core
from harness.launcher.cost.step_cost import (
    LaunchConditions,
    Observation,
    cpu_cores,
    data_hash,
    machine_kind,
    program_hash,
)
from harness.launcher.runs import Run

CROWDED_SHARE = 0.25
"""Share of the cores that others keep busy from which on more of them may be waiting than are at work."""


def launch_conditions(
    runs: Sequence[Run], observations: Sequence[Observation], load: OtherLoad | None
) -> LaunchConditions:
    """Return the conditions of a launch of `runs`, in the order in which they start. `load`: that of other
    processes since the command began. A machine is calibrated unless earlier runs tell its speed."""
    compiling = _first_of_each_program(runs, observations)
    config = runs[0].config
    if config.cluster.platform != "cpu" or config.engine.name != "local":
        return LaunchConditions(compiling=compiling)
    speed = None if observations else machine_speed(machine_kind("cpu")).over(reference_machine.SPEED)
    return LaunchConditions(speed, _demand(load), compiling)


def seconds_besides_runs(
    runs: Sequence[Run], observations: Sequence[Observation], conditions: LaunchConditions
) -> float:
    """Return the seconds of a sweep in which no run trains: tokens that are still to be made, the start of
    workers, comparison and report."""
    cached_data = {observation.data for observation in observations}
    tokens = {
        source.content: source.train_tokens / (1 - source.heldout_share)
        for run in runs
        if data_hash(run.config, run.facts) not in cached_data
        for source in run.facts.sources.values()
        if not run.facts.has_images and source.heldout_share < 1
    }
    seconds = reference_machine.DRIVER_SECONDS + sum(tokens.values()) / reference_machine.TOKENIZE_RATE
    speed = conditions.speed.compiling if conditions.speed else 1.0
    return seconds / speed * conditions.slowdown(1 / cpu_cores())


def _first_of_each_program(runs: Sequence[Run], observations: Sequence[Observation]) -> frozenset[str]:
    programs = {observation.program for observation in observations}
    names = set[str]()
    for run in runs:
        if (program := program_hash(run.config)) not in programs:
            programs.add(program)
            names.add(run.name)
    return frozenset(names)


def _demand(load: OtherLoad | None) -> float:
    """Return the cores that other processes ask for, over all cores: what they use, or where they may fill
    the cores, what is left for a thread that asks for one more."""
    share = (load.share() if load else None) or 0.0
    if share < CROWDED_SHARE:
        return share
    return max(share, 1 / share_of_a_core() - 1 / (os.cpu_count() or 1))
