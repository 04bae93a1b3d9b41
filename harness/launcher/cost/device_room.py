"""Memory that runs need on their devices, against what these have."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.errors import UserError
from harness.core.host_memory import memory_limit
from harness.core.number_format import GIB, format_bytes
from harness.estimate.layouts import config_layout
from harness.estimate.memory import MEMORY_UNCERTAINTY, least_bytes
from harness.estimate.model_size import ModelShape, shape_from_facts
from harness.estimate.ways_to_fit import layout_memory, shortage
from harness.launcher.runs import Run


@dataclass(frozen=True)
class DeviceRoom:
    """Memory of one device."""

    bytes: float
    source: str
    """Evidence for it, such as the name of the chip."""
    devices: int
    """Number of devices that have as much; simulated ones share the memory of their host."""


def device_room(run: Run) -> DeviceRoom | None:
    """Return the memory of a device of this run: as its cluster describes it, or for simulated devices their
    share of this host. None: only a worker can ask the device."""
    for kind in run.config.cluster.kinds.values():
        return (
            None
            if kind.memory_gib is None
            else DeviceRoom(kind.memory_gib * GIB, kind.chip, kind.chips or run.devices)
        )
    limit = memory_limit()
    if run.config.cluster.platform != "cpu" or run.config.engine.name != "local" or not math.isfinite(limit):
        return None
    source = f"{run.devices} simulated device{'s' * (run.devices > 1)} on {format_bytes(limit)}"
    return DeviceRoom(limit / run.devices, source, run.devices)


def run_bytes(run: Run) -> float:
    """Return the bytes of the fullest device of a run, on the mesh of its config."""
    return sum(layout_memory(_shape(run), config_layout(run.config)).values())


def shortages(runs: Sequence[Run]) -> list[str]:
    """Return a sentence for each run that is estimated to need more memory than its devices have, with what
    would fit; runs of equal sizes are named once."""
    sentences: dict[ModelShape, str] = {}
    for run in runs:
        model = _shape(run)
        size = dataclasses.replace(model, name="", block="")
        if size not in sentences and (sentence := _shortage(run, model, 1.0)):
            sentences[size] = sentence
    return [*sentences.values()]


def check_room(runs: Sequence[Run]) -> None:
    """Raise UserError for a run that cannot fit even if the estimate is as much too large as it may be.
    Between that and the estimate, the worker decides by the sizes of the compiled programs."""
    for run in runs:
        if sentence := _shortage(run, _shape(run), MEMORY_UNCERTAINTY):
            raise UserError(sentence)


def _shortage(run: Run, model: ModelShape, doubt: float) -> str:
    """Return why a run does not fit; empty if it does, or if nobody knows. `doubt`: factor by which its
    estimated parts may be too large."""
    room, layout = device_room(run), config_layout(run.config)
    if room is None or least_bytes(layout_memory(model, layout), doubt) <= room.bytes:
        return ""
    return shortage(model, layout, room.bytes, room.source, room.devices)


def _shape(run: Run) -> ModelShape:
    return shape_from_facts(run.config, run.facts, run.name)
