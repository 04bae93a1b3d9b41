"""What finished runs took, kept in the cache for the next prediction, and how wrong the last one was."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.core import atomic_files
from harness.core.cache_dir import cache_dir
from harness.launcher.cost import prediction_log
from harness.launcher.cost.correction import Correction, fit_corrections
from harness.launcher.cost.step_cost import Observation, Workload, machine_kind, program_hash, workload_of
from harness.launcher.runs import Run
from harness.records.paths import SweepDir
from harness.records.run.metrics import read_curve
from harness.records.run.status import State, read_status
from harness.records.run.timeline import TRAIN, phase_spans, read_timeline
from harness.records.run.utilisation import describe_utilisation, utilisation
from harness.records.sweep import ledger

WARMUP_STEPS = 5
"""First steps of a run, which its rate leaves out."""
CHUNK_STEPS = 10
"""Steps that are averaged before the median is taken: one pause of the host moves one chunk, and the long
steps of a busy one count for what they cost."""
MAX_OBSERVATIONS = 1000
"""Observations of a kind of machine, the newest."""


STEADY_PHASES = (TRAIN, "evaluate", "save")
"""Phases that are told apart; the rest is starting up."""


@dataclass(frozen=True)
class RunTiming:
    """Wall seconds of a finished run."""

    step_seconds: float
    phase_seconds: Mapping[str, float]
    """By phase of its timeline."""

    @property
    def total_seconds(self) -> float:
        return sum(self.phase_seconds.values())


def load_observations(platform: str) -> list[Observation]:
    """What was measured on this kind of machine, oldest first. Nothing where the cache is damaged."""
    content = atomic_files.read_json(_path())
    entries = content.get(machine_kind(platform), []) if isinstance(content, dict) else []
    try:
        return [Observation(**entry) for entry in entries]
    except TypeError:
        return []


def load_corrections(platform: str) -> dict[str, Correction]:
    """What earlier predictions for this kind of machine teach, by what they rested on."""
    return fit_corrections(prediction_log.read_predictions().predictions, machine_kind(platform))


def record_timings(sweep: SweepDir, runs: Sequence[Run], crowd: float) -> list[str]:
    """Keep what these runs took, and record how wrong was what the ledger predicted of them.

    Returns that in words; empty where no run was trained from its start to its end.
    """
    taken = {run.name: found for run in runs if (found := run_timing(run)) is not None}
    finished = [run for run in runs if run.name in taken]
    if not finished:
        return []
    said = _judged(sweep, {name: each.total_seconds for name, each in taken.items()})
    try:
        _keep(finished, taken, crowd)
        prediction_log.append_predictions(_held_against(sweep, finished, taken))
    except OSError as error:
        where = error.filename or "the cache"
        said.append(f"{where}: {error.strerror}; later predictions will not know what these runs took.")
    return said


def run_timing(run: Run) -> RunTiming | None:
    """None for a run that did not finish in one attempt, or is too short to tell."""
    status = read_status(run.dir)
    if status.state is not State.finished or status.attempt != 1:
        return None
    seconds = np.diff(read_curve(run.dir, "steps")["device_seconds"].to_numpy())[WARMUP_STEPS:] / run.devices
    phases: dict[str, float] = {}
    for span in phase_spans(read_timeline(run.dir)):
        phases[span.phase] = phases.get(span.phase, 0.0) + span.seconds
    if len(seconds) < CHUNK_STEPS or seconds.sum() <= 0 or not phases:
        return None
    chunks = np.array_split(seconds, len(seconds) // CHUNK_STEPS)
    return RunTiming(float(np.median([chunk.mean() for chunk in chunks])), phases)


def to_observation(run: Run, taken: RunTiming, crowd: float, warm: bool) -> Observation:
    demand = workload_of(run.config, run.facts)
    rate = demand.step_flops / taken.step_seconds
    phases = taken.phase_seconds
    return Observation(
        step_flops=demand.step_flops,
        width=run.devices,
        crowd=crowd,
        rate=rate * max(1.0, crowd) / run.devices,
        evaluation=_evaluation(demand, phases, rate),
        save=phases["save"] / demand.saves if "save" in phases else None,
        startup=sum(seconds for phase, seconds in phases.items() if phase not in STEADY_PHASES),
        program=program_hash(run.config),
        warm=warm,
    )


def _evaluation(demand: Workload, phases: Mapping[str, float], rate: float) -> float | None:
    """Rate of evaluation over that of training."""
    return demand.evaluation_flops / phases["evaluate"] / rate if phases.get("evaluate") else None


def _keep(finished: Sequence[Run], taken: Mapping[str, RunTiming], crowd: float) -> None:
    """Of two sweeps that end at one moment one may be forgotten, which costs the next prediction little."""
    platform = finished[0].config.cluster.platform
    before = load_observations(platform)
    compiled = {each.program for each in before}
    new = [to_observation(r, taken[r.name], crowd, program_hash(r.config) in compiled) for r in finished]
    content = atomic_files.read_json(_path())
    content = content if isinstance(content, dict) else {}
    entries = [dataclasses.asdict(each) for each in [*before, *new]]
    atomic_files.write_json(_path(), content | {machine_kind(platform): entries[-MAX_OBSERVATIONS:]})


def _held_against(
    sweep: SweepDir, finished: Sequence[Run], taken: Mapping[str, RunTiming]
) -> list[prediction_log.Prediction]:
    """Steps as the ledger predicted them when the runs were placed, which nothing that was measured since
    has changed. Nothing of runs that were placed by an earlier version."""
    places, date = _places(sweep), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    machine = machine_kind(finished[0].config.cluster.platform)
    return [
        prediction_log.Prediction(
            run=run.name,
            experiment=run.config.experiment_name,
            launch=places[run.name]["launch"],
            program=program_hash(run.config),
            machine=machine,
            devices=run.devices,
            evidence=step["evidence"],
            raw=step["raw"],
            predicted=step["seconds"],
            low=step["low"],
            high=step["high"],
            measured=taken[run.name].step_seconds,
            date=date,
        )
        for run in finished
        if (step := places.get(run.name, {}).get("step"))
    ]


def _judged(sweep: SweepDir, measured: Mapping[str, float]) -> list[str]:
    """Write what was predicted beside what was measured."""
    before = {name: place["predicted"] for name, place in _places(sweep).items() if "predicted" in place}
    pairs = {name: before[name] | {"measured": took} for name, took in measured.items() if name in before}
    if not pairs:
        return []
    errors = [abs(each["seconds"] / each["measured"] - 1) for each in pairs.values()]
    inside = sum(each["low"] <= each["measured"] <= each["high"] for each in pairs.values())
    content = {"runs": pairs, "median": float(np.median(errors)), "worst": max(errors), "inside": inside}
    ledger.append(sweep, "prediction", content)
    return [
        f"Predicted times were off by {content['median']:.0%} in the median, {content['worst']:.0%} at "
        f"worst; {inside} of {len(pairs)} runs ended within their interval."
    ]


def utilisation_lines(runs: Sequence[Run], devices: int) -> list[str]:
    """How much of the machine trained, and what the rest did, in words. `devices`: of the machine; 0: as
    many as there were at the busiest moment."""
    used = utilisation([phase_spans(read_timeline(run.dir)) for run in runs], devices or None)
    if used is None:
        return []
    said, *more = describe_utilisation(used)
    return [said[0].upper() + said[1:], *(f"  {line}" for line in more)]


def _places(sweep: SweepDir) -> dict[str, dict[str, Any]]:
    """What the ledger says of each run that it placed, the last time that it did so; `launch`: which one."""
    return {
        name: place | {"launch": entry["hash"]}
        for entry in ledger.read_valid(sweep, "placement")
        for name, place in entry["content"]["runs"].items()
    }


def _path() -> Path:
    return cache_dir("cost") / "observations.json"
