"""Utilisation of a machine by a sweep: device-seconds of training that counts, over all device-seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.core.number_format import format_clock, plain_text
from harness.records.paths import SweepDir
from harness.records.run.timeline import TRAIN, PhaseSpan
from harness.records.sweep import ledger

REPEATED, NO_LANE = "repeated", "no lane"
"""Kinds of idle time: training that a later attempt repeated, and devices without a run."""
PAUSE_SECONDS = 90.0
"""Seconds without a run that count as a pause, not as idle: an active driver starts a run within 60 s."""


@dataclass(frozen=True)
class Utilisation:
    """Device-seconds of a sweep by use; `work` and `idle` add up to devices x seconds."""

    devices: int
    seconds: float
    """Wall seconds without pauses."""
    paused: float
    """Wall seconds of pauses."""
    work: float
    """Device-seconds of training that counts."""
    idle: Mapping[str, float]
    """Device-seconds by phase or kind of idle time, largest first."""
    unit: str = "device"
    """`core` if the sweep used more simulated devices at once than the machine has cores."""

    @property
    def share(self) -> float:
        """Share of the device-seconds that trained."""
        return self.work / (self.devices * self.seconds)


def utilisation(
    lanes: Sequence[Sequence[PhaseSpan]], devices: int | None = None, cores: int | None = None
) -> Utilisation | None:
    """Return the utilisation of a machine from each run's spans; None without spans. `devices`: number of
    devices; None takes the largest number in use at once. `cores`: cores of a machine that simulates its
    devices; where more devices than cores are in use, each counts for its share of a core."""
    spans = [span for lane in lanes for span in lane if span.seconds > 0]
    if not spans:
        return None
    devices = devices or peak_devices(spans)
    unit = "core" if cores and cores < devices else "device"
    devices = min(devices, cores or devices)
    seconds_in_use = _shared_seconds(spans, devices)
    sessions = active_sessions(spans)
    seconds = sum(end - start for start, end in sessions)
    kinds: dict[str, float] = {}
    for lane in lanes:
        for span, stands in zip(lane, kept_shares(lane), strict=True):
            device_seconds = span.width * seconds_in_use(span) if span.seconds > 0 else 0.0
            kinds[span.phase] = kinds.get(span.phase, 0.0) + device_seconds * stands
            if stands < 1:
                kinds[REPEATED] = kinds.get(REPEATED, 0.0) + device_seconds * (1 - stands)
    kinds[NO_LANE] = max(0.0, devices * seconds - sum(kinds.values()))
    work = kinds.pop(TRAIN, 0.0)
    ordered = sorted(kinds.items(), key=lambda item: -item[1])
    idle = {kind: device_seconds for kind, device_seconds in ordered if device_seconds > 0}
    paused = sessions[-1][1] - sessions[0][0] - seconds
    return Utilisation(devices, seconds, paused, work, idle, unit)


def machine_cores(sweep: SweepDir) -> int | None:
    """Return the cores of the machine whose devices a sweep simulates, from its ledger; None if its devices
    are real, or lie on other machines."""
    counts = [entry["content"].get("cores") for entry in ledger.read_valid(sweep, "placement")]
    return next((count for count in reversed(counts) if isinstance(count, int) and count > 0), None)


def _shared_seconds(spans: Sequence[PhaseSpan], capacity: int) -> Callable[[PhaseSpan], float]:
    """Return a function from a span to its seconds on real devices: at a moment at which more than `capacity`
    are in use, all of them count for less."""
    edges = np.array([(span.start, span.width) for span in spans] + [(s.end, -s.width) for s in spans])
    edges = edges[np.argsort(edges[:, 0], kind="stable")]
    in_use = np.cumsum(edges[:-1, 1])
    if in_use.max() <= capacity:
        return lambda span: span.seconds
    shares = np.minimum(1.0, capacity / np.maximum(in_use, 1))
    shared = np.concatenate([[0.0], np.cumsum(np.diff(edges[:, 0]) * shares)])
    by_moment = dict(zip(edges[:, 0].tolist(), shared.tolist(), strict=True))
    return lambda span: by_moment[span.end] - by_moment[span.start]


def peak_devices(spans: Sequence[PhaseSpan]) -> int:
    """Return the maximum number of devices in use at one time; times are rounded to milliseconds."""
    ends = [(round(span.end, 3), 0, -span.width) for span in spans]
    moments = sorted([(round(span.start, 3), 1, span.width) for span in spans] + ends)
    return int(np.max(np.cumsum([width for _, _, width in moments])))


def active_sessions(spans: Sequence[PhaseSpan]) -> list[tuple[float, float]]:
    """Return the (start, end) intervals between pauses, in UTC seconds."""
    sessions: list[tuple[float, float]] = []
    for span in sorted(spans, key=lambda span: span.start):
        if sessions and span.start - sessions[-1][1] <= PAUSE_SECONDS:
            sessions[-1] = sessions[-1][0], max(sessions[-1][1], span.end)
        else:
            sessions.append((span.start, span.end))
    return sessions


def kept_shares(lane: Sequence[PhaseSpan]) -> list[float]:
    """Return the share of each span that counts: for training, the steps that no later attempt repeated."""
    shares, floors = [], dict[float, float]()
    for span in reversed(lane):
        floor = floors.get(span.share, np.inf)
        if span.phase != TRAIN or span.last <= floor:
            shares.append(1.0)
        else:
            steps = max(0.0, floor - span.first)
            shares.append(steps / (span.last - span.first) if steps else 0.0)  # a span that hung has no steps
        if span.phase == TRAIN:
            floors[span.share] = min(floor, span.first)
    return shares[::-1]


def describe_utilisation(result: Utilisation, unreadable: int = 0) -> list[str]:
    """Return lines with the share that trained, the idle shares (largest first), the pauses, and the number
    of `unreadable` lines of the timelines."""
    total = result.devices * result.seconds
    idle = ", ".join(f"{kind} {100 * seconds / total:.1f} %" for kind, seconds in result.idle.items())
    devices = f"{result.devices} {result.unit}{'s' * (result.devices != 1)}"
    lines = [f"utilisation {100 * result.share:.1f} % of {devices} over {format_clock(result.seconds)}"]
    lines += [f"idle: {idle}"] if idle else []
    lines += [f"pauses of {format_clock(result.paused)} left out"] if result.paused else []
    lines += [f"{unreadable} lines of timelines cannot be read, damaged or cut short by a kill"] * bool(
        unreadable
    )
    return [plain_text(line) for line in lines]
