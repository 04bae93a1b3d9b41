"""Measured times of finished runs, cached for later predictions, and the error of their own predictions."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.core.cache.cache_entries import CacheEntry
from harness.core.errors import UserError
from harness.core.host.host_load import LoadHistory
from harness.launcher.cost import prediction_log
from harness.launcher.cost.reference_machine import PROCESS_SECONDS
from harness.launcher.cost.step_cost import (
    Observation,
    data_hash,
    machine_kind,
    program_hash,
    program_layers,
    width_of_model,
    workload_of,
)
from harness.launcher.runs import Run
from harness.records.paths import SweepDir
from harness.records.run.metrics import read_curve
from harness.records.run.status import State, read_status
from harness.records.run.timeline import BEGIN, TRAIN, phase_spans, read_timeline, unreadable_lines
from harness.records.run.utilisation import describe_utilisation, machine_cores, utilisation
from harness.records.sweep import ledger

WARMUP_STEPS = 5
"""First steps of a run, which its rate leaves out."""
CHUNK_STEPS = 10
"""Steps that are averaged before the median is taken: a pause of the host moves only one chunk, while the
long steps of a busy host count in full."""
MAX_OBSERVATIONS = 1000
"""Newest observations that are kept for each kind of machine."""
STEADY_PHASES = (TRAIN, "evaluate", "save")
"""Phases that are measured apart; all others count as startup."""
_OBSERVATIONS = CacheEntry("cost", "observations", {})


@dataclass(frozen=True)
class RunTiming:
    """Wall seconds of a finished run."""

    step_seconds: float
    phase_seconds: Mapping[str, float]
    """Seconds by phase of its timeline."""
    begin: float = 0.0
    """UTC seconds of its start, as of the next two."""
    first_step: float = 0.0
    end: float = 0.0


def load_observations(platform: str) -> list[Observation]:
    """Return the observations on this kind of machine, oldest first; none if the cache is damaged."""
    content = _OBSERVATIONS.read_json()
    entries = content.get(machine_kind(platform), []) if isinstance(content, dict) else []
    try:
        return [Observation(**entry) for entry in entries]
    except TypeError:
        return []


def load_corrections(platform: str) -> dict[str, prediction_log.Correction]:
    """Return the corrections for this kind of machine, by evidence."""
    records = prediction_log.read_predictions().predictions
    return prediction_log.fit_corrections(records, machine_kind(platform))


def record_timings(
    sweep: SweepDir, runs: Sequence[Run], oversubscription: float, load: LoadHistory | None = None
) -> list[str]:
    """Store the times of these runs, and the errors of what the ledger predicted for them. Returns lines
    about these errors; none if no run was trained from its start to its end. A cache that cannot be written
    is one more line. `load`: load of other processes while they trained."""
    timings = {run.name: timing for run in runs if (timing := run_timing(run)) is not None}
    finished = [run for run in runs if run.name in timings]
    if not finished:
        return []
    cached_data = _cached_data(runs[0].config.cluster.platform)
    seconds = {
        run.name: sum(timings[run.name].phase_seconds.values())
        - _token_seconds(run, timings[run.name], cached_data)
        for run in finished
    }
    lines = _record_errors(sweep, seconds)
    try:
        _save_observations(finished, timings, oversubscription, load)
        prediction_log.append_predictions(_to_predictions(sweep, finished, timings))
    except (OSError, UserError) as error:
        reason = (
            f"{error.filename or 'the cache'}: {error.strerror}." if isinstance(error, OSError) else error
        )
        lines.append(f"{reason} Later predictions will not use the times of these runs.")
    return lines


def run_timing(run: Run) -> RunTiming | None:
    """Return the times of a run; None if it did not finish in one attempt, or has too few steps."""
    status = read_status(run.dir)
    if status.state is not State.finished or status.attempt != 1:
        return None
    seconds = np.diff(read_curve(run.dir, "steps")["device_seconds"].to_numpy())[WARMUP_STEPS:] / run.devices
    spans, phases = phase_spans(read_timeline(run.dir)), dict[str, float]()
    for span in spans:
        phases[span.phase] = phases.get(span.phase, 0.0) + span.seconds
    if len(seconds) < CHUNK_STEPS or seconds.sum() <= 0 or not phases:
        return None
    chunks = np.array_split(seconds, len(seconds) // CHUNK_STEPS)
    first_step = next((span.start for span in spans if span.phase == TRAIN), spans[-1].end)
    step_seconds = float(np.median([chunk.mean() for chunk in chunks]))
    return RunTiming(step_seconds, phases, spans[0].start, first_step, spans[-1].end)


def to_observation(
    run: Run, timing: RunTiming, oversubscription: float, warm: bool, busy: float = 0.0
) -> Observation:
    """Return the rates of a finished run. `warm`: its program had been compiled before. `busy`: share of all
    cores that others kept busy meanwhile."""
    workload, phases = workload_of(run.config, run.facts), timing.phase_seconds
    rate = workload.step_flops / timing.step_seconds
    return Observation(
        step_flops=workload.step_flops,
        width=run.devices,
        crowd=oversubscription,
        rate=rate * max(1.0, oversubscription) / run.devices,
        evaluation=workload.evaluation_flops / phases["evaluate"] / rate if phases.get("evaluate") else None,
        save=phases["save"] / workload.saves if "save" in phases else None,
        startup=sum(seconds for phase, seconds in phases.items() if phase not in STEADY_PHASES),
        program=program_hash(run.config),
        warm=warm,
        layers=program_layers(run.facts),
        model_width=width_of_model(run.facts),
        data=data_hash(run.config, run.facts),
        busy=busy,
    )


def _save_observations(
    runs: Sequence[Run], timings: Mapping[str, RunTiming], oversubscription: float, load: LoadHistory | None
) -> None:
    """Add the observations of these runs to the cache. If two sweeps end at the same moment, those of one may
    be lost, which costs later predictions little."""
    platform = runs[0].config.cluster.platform
    observations = load_observations(platform)
    compiled = {observation.program for observation in observations}
    cached_data = {observation.data for observation in observations}
    first_steps: dict[str, float] = {}
    for run in sorted(runs, key=lambda run: timings[run.name].begin):
        timing, program = timings[run.name], program_hash(run.config)
        first_step = first_steps.setdefault(program, timing.first_step)
        busy = load.share(timing.first_step, timing.end) if load else None
        warm = program in compiled or timing.begin >= first_step
        observation = to_observation(run, timing, oversubscription, warm, busy or 0.0)
        if first_step < timing.first_step and not warm:  # it waited for the programs of another
            observation = dataclasses.replace(observation, startup=None)
        elif observation.startup is not None:
            startup = observation.startup - _token_seconds(run, timing, cached_data)
            observation = dataclasses.replace(observation, startup=startup)
        observations.append(observation)
    content = _OBSERVATIONS.read_json()
    entries = [dataclasses.asdict(observation) for observation in observations[-MAX_OBSERVATIONS:]]
    content = (content if isinstance(content, dict) else {}) | {machine_kind(platform): entries}
    _OBSERVATIONS.write_json(content)


def _cached_data(platform: str) -> frozenset[str]:
    """Return the hashes of the data that earlier runs have read; none if the cache cannot be used."""
    try:
        return frozenset(observation.data for observation in load_observations(platform))
    except UserError:
        return frozenset()


def _token_seconds(run: Run, timing: RunTiming, cached_data: Container[str]) -> float:
    """Return the seconds that a run waited for its tokens, which are made once in a sweep, not in each run:
    those of its start, if no earlier run has read the same."""
    if data_hash(run.config, run.facts) in cached_data:
        return 0.0
    return max(0.0, timing.phase_seconds.get(BEGIN, 0.0) - PROCESS_SECONDS)


def _to_predictions(
    sweep: SweepDir, runs: Sequence[Run], timings: Mapping[str, RunTiming]
) -> list[prediction_log.Prediction]:
    """Return the step times that the ledger predicted when the runs were placed, with the measured ones. Runs
    that an earlier version placed have no prediction."""
    places, date = _placements(sweep), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    machine = machine_kind(runs[0].config.cluster.platform)
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
            measured=timings[run.name].step_seconds,
            date=date,
        )
        for run in runs
        if (step := places.get(run.name, {}).get("step"))
    ]


def _record_errors(sweep: SweepDir, measured: Mapping[str, float]) -> list[str]:
    """Write predicted and measured seconds of each run into the ledger. Returns a line about the errors."""
    before = {name: place["predicted"] for name, place in _placements(sweep).items() if "predicted" in place}
    pairs = {n: before[n] | {"measured": seconds} for n, seconds in measured.items() if n in before}
    if not pairs:
        return []
    errors = [abs(pair["seconds"] / pair["measured"] - 1) for pair in pairs.values()]
    inside = sum(pair["low"] <= pair["measured"] <= pair["high"] for pair in pairs.values())
    content = {"runs": pairs, "median": float(np.median(errors)), "worst": max(errors), "inside": inside}
    ledger.append(sweep, "prediction", content)
    return [
        f"Predicted times were off by {content['median']:.0%} in the median, {content['worst']:.0%} at "
        f"worst; {inside} of {len(pairs)} runs ended within their interval."
    ]


def utilisation_lines(sweep: SweepDir, runs: Sequence[Run], devices: int) -> list[str]:
    """Return lines about the share of the machine that trained, and what the rest did. `devices`: number of
    devices of the machine; 0 takes the largest number that was in use at once."""
    lanes = [phase_spans(read_timeline(run.dir)) for run in runs]
    result = utilisation(lanes, devices or None, machine_cores(sweep))
    if result is None:
        return []
    title, *details = describe_utilisation(result, sum(unreadable_lines(run.dir) for run in runs))
    return [title[0].upper() + title[1:], *(f"  {line}" for line in details)]


def _placements(sweep: SweepDir) -> dict[str, dict[str, Any]]:
    """Return the last placement of each run in the ledger, with the hash of its entry as `launch`."""
    return {
        name: place | {"launch": entry["hash"]}
        for entry in ledger.read_valid(sweep, "placement")
        for name, place in entry["content"]["runs"].items()
    }
