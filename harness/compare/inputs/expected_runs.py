"""Runs that a sweep should have, and the scales at which they can be compared.

The blocks of a sweep may differ: pairs at some scales, single runs at others, images beside text. A verdict
covers the scales that control and treatment share. A run without a counterpart is only shown with its curve.
Losses of different units are never pooled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.compare.inputs.ledger_check import entry_runs
from harness.compare.inputs.noise_floor import identical_variants
from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.comparison import Comparison, Rule
from harness.records.paths import SweepDir
from harness.records.sweep import ledger

RunKey = tuple[str, str, int]
"""(scale, variant, seed)."""


@dataclass(frozen=True)
class ExpectedRuns:
    """Runs that exist or should exist, with the treatments and scales that can be compared."""

    rule: Rule
    runs: Sequence[RunRecord]
    ledger_runs: frozenset[RunKey] = frozenset()
    """Runs with a placement in the ledger; empty if it records none."""

    @cached_property
    def expected(self) -> frozenset[RunKey]:
        """Existing runs and those that the ledger places; without a ledger, every variant at every scale and
        seed that some variant has."""
        existing_runs = frozenset(run.key for run in self.runs)
        if self.ledger_runs:
            return existing_runs | self.ledger_runs
        variants = {variant for _, variant, _ in existing_runs}
        return frozenset((scale, name, seed) for scale, _, seed in existing_runs for name in variants)

    @cached_property
    def loss_unit(self) -> str:
        """Unit of the compared losses: the most frequent one among scales with pairs."""
        paired = [unit for scale, unit in self._units.items() if self._beside_control(scale)]
        units = Counter(paired or self._units.values())
        return max(units, key=lambda unit: units[unit], default=Comparison.loss_unit)

    @cached_property
    def treatments(self) -> list[str]:
        """Variants compared with the control: all that share a scale with it and are not identical to it."""
        scales = [scale for scale in self._units if self._units[scale] == self.loss_unit]
        names = {name for scale in scales for name in self._beside_control(scale)}
        return sorted(names - identical_variants(self.runs, self.rule.control))

    def compared_scales(self, treatment: str, scales: Sequence[str]) -> list[str]:
        """Return those of `scales` at which the treatment is compared with the control."""
        same_unit = [scale for scale in scales if self._units[scale] == self.loss_unit]
        return [scale for scale in same_unit if treatment in self._beside_control(scale)]

    @property
    def family_size(self) -> int:
        """Number of tests in Holm's family: treatments (the larger of declared and present) times scales."""
        return max(len(self.rule.family), len(self.treatments)) * len(self._scales_with_pairs)

    @property
    def not_compared_notes(self) -> list[str]:
        """Note that names the runs at scales without any comparison; empty if no scale has one."""
        records, scales = [run.provenance for run in self.runs], self._scales_with_pairs
        names = dict.fromkeys(
            f"{r.variant} at {r.scale}" for r in records if scales and r.scale not in scales
        )
        sentence = f"Not compared (no other variant in {self.loss_unit} at the same scale): "
        return [f"{sentence}{', '.join(names)}."] if names else []

    @cached_property
    def _scales_with_pairs(self) -> set[str]:
        return {scale for name in self.treatments for scale in self.compared_scales(name, [*self._units])}

    @cached_property
    def _units(self) -> dict[str, str]:
        """Loss unit of each scale; runs with a damaged record do not count."""
        unit_counts: dict[str, Counter[str]] = {}
        for run in self.runs:
            facts = run.provenance.facts
            unit_counts.setdefault(run.provenance.scale, Counter())[facts.loss_unit] += bool(facts.steps)
        return {scale: count.most_common(1)[0][0] for scale, count in unit_counts.items()}

    def _beside_control(self, scale: str) -> set[str]:
        """Return the other variants at the scale; empty if the control is not there."""
        variants = {variant for run_scale, variant, _ in self.expected if run_scale == scale}
        return variants - {self.rule.control} if self.rule.control in variants else set()


def runs_in_ledger(sweep: SweepDir) -> frozenset[RunKey]:
    """Return every run with a placement in the ledger."""
    names = [name.split("/") for entry in ledger.read(sweep, "placement") for name in entry_runs(entry)]
    runs = [(*parts[:2], parts[2].removeprefix("seed")) for parts in names if len(parts) == 3]
    return frozenset(
        (scale, variant, int(seed)) for scale, variant, seed in runs if seed.isdecimal() and len(seed) < 19
    )
