"""Result of the timing pass as ratios with intervals, from the statistics of the visits in timing.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.compare.inputs.json_values import dict_or_empty, number_or_none
from harness.compare.stats.speed_up import TimingRatio, timing_ratio

EXCLUSIVE_BELOW = 0.05
"""Share of the CPUs that other processes kept busy, below which the pass had the host for itself."""


@dataclass(frozen=True)
class StepTiming:
    """Step times that were measured apart from the training, at one scale."""

    scale: str = ""
    step_seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds a step by variant."""
    ratios: Mapping[str, TimingRatio] = field(default_factory=dict)
    """Ratio to the control by treatment."""
    exclusive: bool = False
    """True if nothing else was at work on the host, as far as it tells."""

    def is_noisy(self, treatment: str) -> bool:
        """Return True if the ratio decides nothing (NOISY_TIMING): its quads scatter, on a shared host."""
        ratio = self.ratios.get(treatment)
        return ratio is not None and ratio.noisy and not self.exclusive

    def ratio_text(self, treatment: str) -> str:
        """Return the ratio of a treatment in words."""
        ratio = self.ratios[treatment]
        text = f"{treatment}: {ratio.ratio:.3f} times the control's step time"
        if ratio.se is None:
            return text
        ends = f"[{math.exp(ratio.low):.3f}, {math.exp(ratio.high):.3f}]"
        noisy = "; NOISY_TIMING, on a shared host" if self.is_noisy(treatment) else ""
        return f"{text} {ends}, {ratio.quads} quads of SD {100 * (ratio.sd or 0.0):.1f} %{noisy}"


NOT_TIMED = StepTiming()
"""No step times."""


def read_step_timing(content: Any, control: str = "") -> StepTiming:
    """Return what the content of timing.json says, whatever part of it is missing or damaged.

    A file of an earlier version has step times without visits: its ratios to `control` have no interval.
    """
    record = dict_or_empty(content)
    scale, other_share = record.get("scale"), number_or_none(record.get("others_share"))
    seconds = _step_seconds(record)
    ratios = _ratios(record) if "visits" in record else _ratios_without_interval(seconds, control)
    is_exclusive = other_share is not None and other_share < EXCLUSIVE_BELOW
    return StepTiming(scale if isinstance(scale, str) else "", seconds, ratios, is_exclusive)


def _step_seconds(record: Mapping[str, Any]) -> dict[str, float]:
    variants = dict_or_empty(record.get("variants"))
    numbers = {
        name: number_or_none(dict_or_empty(values).get("step_seconds")) for name, values in variants.items()
    }
    return {name: number for name, number in numbers.items() if number is not None and number > 0}


def _ratios(record: Mapping[str, Any]) -> dict[str, TimingRatio]:
    ratios = {}
    for name, rows in dict_or_empty(record.get("visits")).items():
        quads = [_numbers(row) for row in rows] if isinstance(rows, list) else []
        if quads and all(len(quad) == 4 for quad in quads):
            ratios[name] = timing_ratio(quads)
    return ratios


def _numbers(row: Any) -> list[float]:
    """Return the numbers of a quad, fewer than four if one is damaged."""
    values = row if isinstance(row, list) else []
    return [number for value in values if (number := number_or_none(value)) is not None]


def _ratios_without_interval(seconds: Mapping[str, float], control: str) -> dict[str, TimingRatio]:
    if control not in seconds:
        return {}
    return {
        name: TimingRatio(math.log(value / seconds[control]))
        for name, value in seconds.items()
        if name != control
    }
