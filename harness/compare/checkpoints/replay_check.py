"""Bitwise comparison of replayed steps with a run's record: first mismatch, states, changed environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.records.run.environment import EnvironmentChange

StepRow = Mapping[str, float]
"""Row of the steps table, by column."""


@dataclass(frozen=True)
class Mismatch:
    """Value that is not bitwise equal to the recorded one."""

    step: int
    column: str
    recorded: float
    replayed: float


@dataclass(frozen=True)
class StateCheck:
    """Comparison of the replayed state with a checkpoint of the run."""

    step: int
    arrays: int
    differing: tuple[str, ...]
    """Paths of the arrays that are not bitwise equal."""
    largest: float
    """Largest absolute difference in them; 0 if no difference is finite."""
    same_examples: bool
    """True if the rolling hashes of the examples agree."""

    @property
    def same(self) -> bool:
        """True if arrays and examples are all equal."""
        return not self.differing and self.same_examples


@dataclass(frozen=True)
class ReplayResult:
    """Replay of steps `first` + 1 to `last` of a run; `parting` is the first mismatch."""

    name: str
    """Run name, `<scale>/<variant>/seed<k>[/branch<pct>]`."""
    first: int
    """Step whose state was restored; 0 for a new initialization."""
    last: int
    equal: int
    """Number of steps with every column bitwise equal."""
    columns: tuple[str, ...]
    parting: Mismatch | None
    largest: float
    """Largest absolute loss difference; 0 if there is none."""
    states: tuple[StateCheck, ...]
    changes: tuple[EnvironmentChange, ...]
    notes: tuple[str, ...] = ()
    """Caveats for the reader, one sentence each."""

    @property
    def steps(self) -> int:
        """Number of replayed steps."""
        return self.last - self.first

    @property
    def same(self) -> bool:
        """True if every value and every state is equal."""
        return self.parting is None and all(state.same for state in self.states)


def same_bits(a: float, b: float) -> bool:
    """Return True for equal numbers, and for two NaNs, whose bits may differ."""
    return a == b or (a != a and b != b)


def find_mismatches(
    old_rows: Sequence[Mapping[str, float | None]], new_rows: Sequence[StepRow]
) -> list[Mismatch]:
    """List every value that differs, step by step. Columns without a recorded value are not compared."""
    return [
        Mismatch(int(new_row["step"]), column, old_value, value)
        for old_row, new_row in zip(old_rows, new_rows, strict=True)
        for column, value in new_row.items()
        if (old_value := old_row.get(column)) is not None and not same_bits(old_value, value)
    ]


def largest_difference(mismatches: Iterable[Mismatch], column: str) -> float:
    """Return the largest absolute difference in a column; 0 if none is finite."""
    gaps = [abs(row.recorded - row.replayed) for row in mismatches if row.column == column]
    return max((gap for gap in gaps if np.isfinite(gap)), default=0.0)


def check_state(
    step: int, saved: Mapping[str, np.ndarray], computed: Mapping[str, np.ndarray], *, same_examples: bool
) -> StateCheck:
    """Compare the arrays of a checkpoint (`saved`, by path) with those of the replay (`computed`)."""
    differing = [path for path, array in computed.items() if saved[path].tobytes() != array.tobytes()]
    gaps = (np.abs(saved[p].astype(np.float64) - computed[p].astype(np.float64)) for p in differing)
    largest = max((float(np.max(g, where=np.isfinite(g), initial=0.0)) for g in gaps), default=0.0)
    return StateCheck(step, len(computed), tuple(differing), largest, same_examples)
