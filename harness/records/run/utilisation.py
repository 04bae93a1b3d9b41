"""How much of a machine a sweep put to use: lane widths times seconds of training that stands, over devices
times wall time. Everything else is idle, and told by what the lane did instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.core.number_format import format_clock, plain_text
from harness.records.run.timeline import TRAIN, PhaseSpan

REPEATED, NO_LANE = "repeated", "no lane"
"""Training that a later attempt did again, and devices on which no lane was."""
PAUSE_SECONDS = 90.0
"""Seconds without any lane that count as a pause of the sweep, in no one's charge: a driver at work starts
what waits within 60 s."""


@dataclass(frozen=True)
class Utilisation:
    devices: int
    seconds: float
    """Wall time without pauses."""
    paused: float
    work: float
    """Device-seconds of training that stands."""
    idle: Mapping[str, float]
    """Device-seconds by what happened instead, most first; with `work` they are devices x seconds."""

    @property
    def share(self) -> float:
        return self.work / (self.devices * self.seconds)


def utilisation(lanes: Sequence[Sequence[PhaseSpan]], devices: int | None = None) -> Utilisation | None:
    """Of the runs' spans; None where nothing was at work.

    `devices`: of the machine; else as many as all lanes had at the busiest moment, so that devices
    which no run ever had go unseen.
    """
    spans = [span for lane in lanes for span in lane if span.seconds > 0]
    if not spans:
        return None
    devices = devices or peak_devices(spans)
    sessions = active_sessions(spans)
    seconds = sum(end - start for start, end in sessions)
    kinds: dict[str, float] = {}
    for lane in lanes:
        for span, stands in zip(lane, kept_shares(lane), strict=True):
            device_seconds = span.width * span.seconds
            kinds[span.phase] = kinds.get(span.phase, 0.0) + device_seconds * stands
            if stands < 1:
                kinds[REPEATED] = kinds.get(REPEATED, 0.0) + device_seconds * (1 - stands)
    kinds[NO_LANE] = max(0.0, devices * seconds - sum(kinds.values()))
    work = kinds.pop(TRAIN, 0.0)
    idle = {kind: spent for kind, spent in sorted(kinds.items(), key=lambda item: -item[1]) if spent > 0}
    return Utilisation(devices, seconds, sessions[-1][1] - sessions[0][0] - seconds, work, idle)


def peak_devices(spans: Sequence[PhaseSpan]) -> int:
    """Devices of all lanes together when they had most; one that ends makes room for one that begins.

    To the millisecond, which is what a timeline holds.
    """
    ends = [(round(span.end, 3), 0, -span.width) for span in spans]
    moments = sorted([(round(span.start, 3), 1, span.width) for span in spans] + ends)
    return int(np.max(np.cumsum([width for _, _, width in moments])))


def active_sessions(spans: Sequence[PhaseSpan]) -> list[tuple[float, float]]:
    """The stretches, in UTC seconds, in which someone drove: from pause to pause."""
    sessions: list[tuple[float, float]] = []
    for span in sorted(spans, key=lambda span: span.start):
        if sessions and span.start - sessions[-1][1] <= PAUSE_SECONDS:
            sessions[-1] = sessions[-1][0], max(sessions[-1][1], span.end)
        else:
            sessions.append((span.start, span.end))
    return sessions


def kept_shares(lane: Sequence[PhaseSpan]) -> list[float]:
    """Of each span the share that counts: of training, the steps that no later attempt went back behind."""
    shares, floors = [], dict[float, float]()
    for span in reversed(lane):
        floor = floors.get(span.share, np.inf)
        if span.phase != TRAIN or span.last <= floor:
            shares.append(1.0)
        else:
            counted = max(0.0, floor - span.first)
            shares.append(
                counted / (span.last - span.first) if counted else 0.0
            )  # one that hung made no step
        if span.phase == TRAIN:
            floors[span.share] = min(floor, span.first)
    return shares[::-1]


def describe_utilisation(result: Utilisation) -> list[str]:
    """The share of the machine that trained; what was done instead, most first; pauses of the sweep."""
    total = result.devices * result.seconds
    idle = ", ".join(
        f"{kind} {100 * device_seconds / total:.1f} %" for kind, device_seconds in result.idle.items()
    )
    devices = f"{result.devices} device{'s' * (result.devices != 1)}"
    lines = [f"utilisation {100 * result.share:.1f} % of {devices} over {format_clock(result.seconds)}"]
    lines += [f"idle: {idle}"] if idle else []
    lines += [f"pauses of {format_clock(result.paused)} left out"] if result.paused else []
    return [plain_text(line) for line in lines]
