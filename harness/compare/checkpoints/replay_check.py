"""What a replayed stretch of a run says: bitwise the same, or where it parts, and what is otherwise now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.records.run.environment import Changed

Row = Mapping[str, float]
"""A row of the steps table, by column."""


@dataclass(frozen=True)
class Parting:
    """The first value that is not bitwise what the run wrote down."""

    step: int
    column: str
    recorded: float
    replayed: float


@dataclass(frozen=True)
class StateCheck:
    """The replayed state against a checkpoint of the run."""

    step: int
    arrays: int
    differing: tuple[str, ...]
    """Paths of those that are not bitwise equal."""
    largest: float
    """Largest absolute difference of a number in them; 0 where none is (of NaN there is none either)."""
    same_examples: bool
    """The rolling hash of the examples that were read."""

    @property
    def same(self) -> bool:
        return not self.differing and self.same_examples


@dataclass(frozen=True)
class Replay:
    name: str
    """`<scale>/<variant>/seed<k>[/branch<pct>]`."""
    first: int
    """The step whose state was restored, or 0 for that which was drawn anew."""
    last: int
    equal: int
    """Steps of which every column is bitwise as it was."""
    columns: tuple[str, ...]
    parting: Parting | None
    largest: float
    """Largest absolute difference of a loss; 0 where none is."""
    states: tuple[StateCheck, ...]
    changes: tuple[Changed, ...]
    notes: tuple[str, ...] = ()
    """What a reader must know to believe the rest, a sentence each."""

    @property
    def steps(self) -> int:
        return self.last - self.first

    @property
    def same(self) -> bool:
        return self.parting is None and all(state.same for state in self.states)


def same_bits(one: float, other: float) -> bool:
    """Equal numbers, or both NaN: the bits of a NaN are nobody's."""
    return one == other or (one != one and other != other)


def partings(recorded: Sequence[Mapping[str, float | None]], replayed: Sequence[Row]) -> list[Parting]:
    """Every value that differs, step by step. A column that the record has not is not compared."""
    return [
        Parting(int(now["step"]), column, was, value)
        for then, now in zip(recorded, replayed, strict=True)
        for column, value in now.items()
        if (was := then.get(column)) is not None and not same_bits(was, value)
    ]


def largest(found: Iterable[Parting], column: str) -> float:
    """Largest absolute difference in a column; 0 where none is finite."""
    gaps = [abs(each.recorded - each.replayed) for each in found if each.column == column]
    return max((gap for gap in gaps if np.isfinite(gap)), default=0.0)


def check_state(
    step: int, saved: Mapping[str, np.ndarray], replayed: Mapping[str, np.ndarray], *, same_examples: bool
) -> StateCheck:
    """Arrays by path, those of a checkpoint and those that were computed again."""
    differing = [path for path, array in replayed.items() if saved[path].tobytes() != array.tobytes()]
    gaps = [_gap(saved[path], replayed[path]) for path in differing]
    return StateCheck(step, len(replayed), tuple(differing), max(gaps, default=0.0), same_examples)


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    gap = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(np.max(gap, where=np.isfinite(gap), initial=0.0))
