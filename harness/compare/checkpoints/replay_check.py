"""Bitwise comparison of replayed steps with a run's record: first mismatch, states, changed environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.records.run.environment import EnvironmentChange

StepRow = Mapping[str, float]
"""Row of the steps table, by column."""
EvalRow = Mapping[str, Any]
"""Row of the evaluations table, by column; it has a `domain`."""
KEYS = ("step", "domain")
"""Columns that say which row it is."""


@dataclass(frozen=True)
class Mismatch:
    """Value that is not bitwise equal to the recorded one. NaN: one side has no such row."""

    step: int
    column: str
    recorded: float
    replayed: float
    domain: str = ""
    """Held-out domain of an evaluation; empty for a training step."""


@dataclass(frozen=True)
class EvaluationCheck:
    """Comparison of the evaluations in a range with the recorded ones, in every held-out domain."""

    steps: tuple[int, ...]
    """Steps at which an evaluation was recorded and replayed."""
    equal: int
    """Number of these evaluations that are bitwise equal in all domains."""
    columns: tuple[str, ...]
    parting: Mismatch | None
    """First mismatch."""
    largest: float
    """Largest absolute loss difference; 0 if there is none."""


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
    """Replay of steps `first` + 1 to `last` of a run; `parting` is the first mismatch of a step."""

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
    evaluations: EvaluationCheck
    states: tuple[StateCheck, ...]
    changes: tuple[EnvironmentChange, ...]
    unrecorded_conditions: tuple[str, ...] = ()
    """Properties of the environment that the run did not record, and which may differ."""
    notes: tuple[str, ...] = ()
    """Caveats for the reader, one sentence each."""

    @property
    def steps(self) -> int:
        """Number of replayed steps."""
        return self.last - self.first

    @property
    def same(self) -> bool:
        """True if every value, every evaluation and every state is equal."""
        partings = self.parting, self.evaluations.parting
        return partings == (None, None) and all(state.same for state in self.states)


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


def check_evaluations(old_rows: Sequence[EvalRow], new_rows: Sequence[EvalRow]) -> EvaluationCheck:
    """Compare replayed evaluations with the recorded rows of the same steps. A row that only one side has is
    a mismatch of its loss."""
    old = {(row["step"], row["domain"]): row for row in old_rows}
    new = {(row["step"], row["domain"]): row for row in new_rows}
    differing = [
        Mismatch(step, column, _number(old_value), _number(value), domain)
        for step, domain in sorted(old.keys() | new.keys())
        for column, old_value, value in _pairs(old.get((step, domain)), new.get((step, domain)))
        if not same_bits(_number(old_value), _number(value)) or None in (old_value, value)
    ]
    steps = sorted({row["step"] for row in new_rows})
    equal = len(steps) - len({mismatch.step for mismatch in differing})
    columns = tuple(dict.fromkeys(column for row in new_rows for column in row if column not in KEYS))
    parting = differing[0] if differing else None
    return EvaluationCheck(tuple(steps), equal, columns, parting, largest_difference(differing, "loss"))


def _pairs(old: EvalRow | None, new: EvalRow | None) -> list[tuple[str, Any, Any]]:
    """Return column, recorded and replayed value, as far as both sides have one."""
    if old is None or new is None:
        return [("loss", old and old["loss"], new and new["loss"])]
    columns = (column for column in new if column not in KEYS and old.get(column) is not None)
    return [(column, old[column], new[column]) for column in columns]


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


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
