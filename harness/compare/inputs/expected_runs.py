"""Which runs a sweep is to have, and which of them have a sibling to be compared with.

The blocks of a sweep may be unequal: pairs at some scales, single runs at others, images beside text. A
verdict is about the scales that control and treatment share; a run without a sibling is shown with its curve
and decides nothing. Losses of another unit are never pooled, whoever their sibling is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.compare.inputs.noise_floor import twins_of
from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.comparison import Comparison, Rule
from harness.records.paths import SweepDir
from harness.records.sweep import ledger

Key = tuple[str, str, int]
"""Scale, variant, seed."""


@dataclass(frozen=True)
class Roster:
    rule: Rule
    runs: Sequence[RunRecord]
    placed: frozenset[Key] = frozenset()
    """Runs that the ledger has a place for; empty where nobody wrote one down."""

    @cached_property
    def expected(self) -> frozenset[Key]:
        """Every run that is there, and every one that should be: by the ledger, else each variant at each
        scale and seed that some variant has."""
        found = frozenset(run.key for run in self.runs)
        if self.placed:
            return found | self.placed
        variants = {variant for _, variant, _ in found}
        return frozenset((scale, name, seed) for scale, _, seed in found for name in variants)

    @cached_property
    def unit(self) -> str:
        """What losses are compared in: of the units that pairs are measured in, the one of most scales."""
        paired = [unit for scale, unit in self._units.items() if self._meet(scale)]
        units = Counter(paired or self._units.values())
        return max(units, key=lambda unit: units[unit], default=Comparison.loss_unit)

    @cached_property
    def treatments(self) -> list[str]:
        """What is compared with the control: every variant that shares a scale with it, and is not the
        control by another name."""
        met = {name for scale in self._units for name in self._meet(scale) if self._units[scale] == self.unit}
        return sorted(met - twins_of(self.runs, self.rule.control))

    def scales_of(self, treatment: str, scales: Sequence[str]) -> list[str]:
        """Of these scales those at which it is compared."""
        return [s for s in scales if treatment in self._meet(s) and self._units[s] == self.unit]

    @property
    def family(self) -> int:
        """Tests that Holm's procedure runs over: treatments, those declared or those there, times scales."""
        return max(len(self.rule.family), len(self.treatments)) * len(self._compared)

    @property
    def alone(self) -> list[RunRecord]:
        """Runs of scales at which nothing is compared, where at others something is."""
        return [run for run in self.runs if self._compared and run.provenance.scale not in self._compared]

    @cached_property
    def _compared(self) -> set[str]:
        return {scale for name in self.treatments for scale in self.scales_of(name, [*self._units])}

    @cached_property
    def _units(self) -> dict[str, str]:
        """Of each scale's losses; a run whose record is damaged does not know its own."""
        found: dict[str, Counter[str]] = {}
        for run in self.runs:
            facts = run.provenance.facts
            found.setdefault(run.provenance.scale, Counter())[facts.loss_unit] += bool(facts.steps)
        return {scale: count.most_common(1)[0][0] for scale, count in found.items()}

    def _meet(self, scale: str) -> set[str]:
        """Variants that have the control beside them."""
        here = {variant for where, variant, _ in self.expected if where == scale}
        return here - {self.rule.control} if self.rule.control in here else set()


def placed_runs(sweep: SweepDir) -> frozenset[Key]:
    """Every run that the ledger has a place for."""
    names = [name for entry in ledger.read(sweep, "placement") for name in _runs_of(entry["content"])]
    return frozenset(key for name in names if (key := _key(name)))


def _runs_of(content: object) -> list[str]:
    runs = content.get("runs") if isinstance(content, dict) else None
    return [*runs] if isinstance(runs, dict) else []


def _key(name: str) -> Key | None:
    """`<scale>/<variant>/seed<k>`."""
    parts = name.split("/")
    number = parts[-1].removeprefix("seed")
    return (parts[0], parts[1], int(number)) if len(parts) == 3 and number.isdigit() else None
