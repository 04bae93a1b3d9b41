"""A treatment and its control at one scale: seeds, differences along the run, and their chart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from harness.compare import Comparison
from harness.compare.results.verdict_types import Rung
from harness.core.errors import UserError, did_you_mean
from harness.core.number_format import format_loss, format_signed, plain_text
from harness.report.tables import wording
from harness.report.tables.text_table import Table, make_table

if TYPE_CHECKING:
    from harness.report.charts.panels import Panel
    from harness.report.frames.sweep_frames import Frames

_SEEDS = {"seed": pl.Int64, **dict.fromkeys(("control", "treatment", "delta"), pl.Float64)}


@dataclass(frozen=True, repr=False)
class OpenedPair:
    """Comparison of a treatment with its control at one scale."""

    comparison: Comparison
    rung: Rung
    """Numbers of the verdict at this scale: difference, k, p, decision, reason, flags."""
    frames: Frames
    """Data of the charts of the whole sweep."""

    @cached_property
    def seeds(self) -> pl.DataFrame:
        """Row per pair: seed, losses of control and treatment at the end, and delta, treatment minus control,
        in the unit of the sweep."""
        rows = [(pair.seed, pair.control, pair.treatment, pair.delta) for pair in self.rung.pairs]
        return pl.DataFrame(rows, schema=_SEEDS, orient="row")

    @cached_property
    def differences(self) -> pl.DataFrame:
        """Held-out loss of the treatment minus that of the control along the run: seed, step, tokens, phase
        (hot, decayed, or branch: the decayed end of a cooldown branch), delta."""
        from harness.report.frames.sweep_frames import paired_deltas

        deltas = paired_deltas(self.frames.evals, self.rung.control)
        rows = deltas.filter(scale=self.rung.scale, variant=self.rung.variant)
        return rows.select("seed", "step", "tokens", "phase", "delta").sort("seed", "step", "phase")

    def figure(self) -> Panel:
        """Return the difference along the run as an altair chart. Raises UserError if no step is shared."""
        from harness.report.chart_choice import in_theme
        from harness.report.charts.loss_difference import loss_differences

        chart = loss_differences(
            self.comparison, self.frames, scale=self.rung.scale, variant=self.rung.variant
        )
        if chart is None:
            raise UserError(f"{_title(self.rung)}: the two have no evaluation at the same step and seed")
        return in_theme(chart)

    def __repr__(self) -> str:
        return "\n".join([_title(self.rung), *(f"  {line}" for line in self._lines())])

    def _repr_html_(self) -> str:
        from harness.report.page.notebook import html_paragraphs, html_table

        title = html_paragraphs([_title(self.rung)], bold=True)
        return title + html_paragraphs(self._numbers()) + html_table(self._seed_table())

    def _lines(self) -> list[str]:
        seeds = [
            f"seed {seed}: {control} and {treatment}, {delta}"
            for seed, control, treatment, delta in self._seed_table().rows
        ]
        return [*self._numbers(), *seeds]

    def _numbers(self) -> list[str]:
        rung, unit = self.rung, self.comparison.loss_unit
        return [
            plain_text(f"{rung.decision.value}: {rung.reason}"),
            plain_text(f"difference {wording.format_effect(rung.delta)} {unit}, n = {rung.n}"),
            plain_text(f"k = {wording.format_multiplier(rung.k)}"),
        ]

    def _seed_table(self) -> Table:
        rows = (
            (
                str(pair.seed),
                format_loss(pair.control),
                format_loss(pair.treatment),
                format_signed(pair.delta),
            )
            for pair in self.rung.pairs
        )
        return make_table(("seed", self.rung.control, self.rung.variant, "difference"), rows)


def find_rung(comparison: Comparison, variant: str, control: str | None, scale: str | None) -> Rung:
    """Return the numbers of a treatment at a scale (None: its largest). Raises UserError for a variant, a
    control or a scale that the verdict does not have."""
    rule_control, rungs = comparison.rule.control, [r for r in comparison.rungs if r.variant == variant]
    if control is not None and control != rule_control:
        raise UserError(
            f"control={control}: the verdict compares with {rule_control} alone; leave the control out"
        )
    if variant == rule_control:
        raise UserError(f"variant={variant} is the control: name a treatment that it is compared with")
    if not rungs:
        variants = [rung.variant for rung in comparison.rungs]
        raise UserError(f"variant={variant} is not compared here; {did_you_mean(variant, variants)}")
    if scale is None:
        return rungs[-1]
    scales = [rung.scale for rung in rungs]
    if scale not in scales:
        raise UserError(f"scale={scale}: {variant} has no pair there; {did_you_mean(scale, scales)}")
    return rungs[scales.index(scale)]


def _title(rung: Rung) -> str:
    return plain_text(f"{rung.variant} against {rung.control} at {rung.scale}")
