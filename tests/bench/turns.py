"""Live contenders that take turns, so that a machine whose speed drifts slows all of them alike.

Each contender is a process of its own, and holds its model in memory from the first to the last turn.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, cast

from tests.bench.contender import READY, SECONDS

PAUSE_SECONDS = 0.02
"""Seconds before a turn. Threads of the last contender may spin for a few milliseconds after its step."""


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without flags of JAX and XLA, and with `variables`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("JAX", "XLA"))}
    return kept | variables


class LiveContender:
    """Process that makes one step when asked. Leave the context to end it."""

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        """Start `python ARGUMENTS`."""
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> LiveContender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_until_ready(self) -> None:
        """Wait for the first step, which compiles. Raises RuntimeError if the process leaves before it."""
        self._read(READY)

    def step(self) -> float:
        """Return the seconds of one step. Raises RuntimeError if the process leaves instead."""
        inputs = cast(IO[str], self._process.stdin)
        inputs.write("\n")
        inputs.flush()
        return float(self._read(SECONDS))

    def _read(self, beginning: str) -> str:
        """Return the rest of the next line with this beginning; libraries may print others."""
        for line in cast(IO[str], self._process.stdout):
            if line.startswith(beginning):
                return line.removeprefix(beginning)
        raise RuntimeError(f"{self.name} left with status {self._process.wait()} instead of a step")


def take_turns(contenders: Sequence[LiveContender], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each contender's steps by name. The order moves on by one in each round. The
    first round warms caches and is left out."""
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for index in range(rounds + 1):
        first = index % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            time.sleep(PAUSE_SECONDS)
            seconds[contender.name].append(contender.step())
    return {name: values[1:] for name, values in seconds.items()}


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of the rounds of one run."""

    low: float
    median: float
    high: float

    def text(self, form: str = ".2f") -> str:
        """Return `median (low to high)`, each in the format `form`."""
        return f"{self.median:{form}} ({self.low:{form}} to {self.high:{form}})"


def spread(values: Sequence[float]) -> Spread:
    """Return the median and quartiles of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def ratios(times: Mapping[str, Sequence[float]], above: str, below: str) -> list[float]:
    """Return the ratio of the times of two contenders in each round."""
    return [a / b for a, b in zip(times[above], times[below], strict=True)]
