"""Assignment of a run's examples to sources.

Examples are numbered from 0 over the whole run. Among the first n examples of a stage, each source has its
share of n to within one example. So a run of any length, and every stage of it, reads the mix that its
config names. Seeds order the examples of a source, never the sources. The k-th example that a run takes
from a source depends on k alone, so variants with other weights read the same examples of it.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

PERIOD = 4096
"""Number of examples after which the pattern of a stage repeats, with exact counts per source."""


def counts_per_period(weights: list[float]) -> list[int]:
    """Return the examples of each source in a period, by largest remainders (ties: the earlier source)."""
    shares = [PERIOD * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in shares]
    order = sorted(range(len(weights)), key=lambda s: counts[s] - shares[s])
    for s in order[: PERIOD - sum(counts)]:
        counts[s] += 1
    return counts


@dataclass(frozen=True)
class Stage:
    """A part of a run with one mix, from example number `first` to the next stage."""

    first: int
    counts: tuple[int, ...]
    """Number of examples of each source in a period."""


@dataclass(frozen=True)
class SourceAssignment:
    """The source of each example, and the number of examples of that source before it."""

    source_B: np.ndarray
    rank_B: np.ndarray


def assign_sources(stages: Sequence[Stage], first: int, length: int) -> SourceAssignment:
    """Assign the examples `first` to `first + length - 1` of a run to sources."""
    example_B = np.arange(first, first + length)
    stage_B = np.searchsorted([stage.first for stage in stages], example_B, side="right") - 1
    source_B = np.empty(length, np.int64)
    for k, stage in enumerate(stages):
        in_stage_B = stage_B == k
        source_B[in_stage_B] = _source_pattern(stage.counts)[(example_B[in_stage_B] - stage.first) % PERIOD]
    return SourceAssignment(source_B, counts_until(stages, example_B)[np.arange(length), source_B])


def counts_until(stages: Sequence[Stage], n_N: Int[np.ndarray, " N"]) -> Int[np.ndarray, "N sources"]:
    """Return how many of the first n examples of a run come from each source."""
    total_NS = np.zeros((len(n_N), len(stages[0].counts)), np.int64)
    for stage, end in zip(stages, [*(later.first for later in stages[1:]), None], strict=True):
        inside_N = np.clip(n_N - stage.first, 0, end and end - stage.first)
        period_N, slot_N = np.divmod(inside_N, PERIOD)
        total_NS += period_N[:, None] * np.array(stage.counts) + _counts_before_slot(stage.counts)[slot_N]
    return total_NS


@functools.lru_cache(maxsize=16)
def _source_pattern(counts: tuple[int, ...]) -> Int[np.ndarray, " slots"]:
    """Return the source of each slot of a period.

    The j-th of k examples of a source may take slots floor(j P / k) to ceil((j + 1) P / k) - 1. The example
    with the earliest deadline goes first. This is feasible, and keeps every prefix within one example of its
    share (Baruah et al. 1996, "Proportionate Progress").
    """
    examples = [(j, k, s) for s, k in enumerate(counts) for j in range(k)]
    ready = sorted((j * PERIOD // k, -((j + 1) * PERIOD // -k), s) for j, k, s in examples)
    source_P, waiting, released = np.empty(PERIOD, np.int64), [], 0
    for slot in range(PERIOD):
        while released < PERIOD and ready[released][0] <= slot:
            heapq.heappush(waiting, ready[released][1:])
            released += 1
        source_P[slot] = heapq.heappop(waiting)[1]
    return source_P


@functools.lru_cache(maxsize=16)
def _counts_before_slot(counts: tuple[int, ...]) -> Int[np.ndarray, "slots sources"]:
    """Return the number of examples of each source before each slot of a period."""
    is_source_PS = _source_pattern(counts)[:, None] == np.arange(len(counts))
    return np.cumsum(is_source_PS, axis=0) - is_source_PS
