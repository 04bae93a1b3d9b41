"""Summary before a sweep is trained: its size, its predicted duration, and its statistical power."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from harness.config.run_identity import config_difference
from harness.core.hashing import is_covered_by
from harness.core.number_format import format_clock, format_si
from harness.launcher.cost.step_cost import cpu_cores
from harness.launcher.placement.forecast import Forecast
from harness.launcher.placement.idle_devices import idle_devices
from harness.launcher.run_directories import Note
from harness.launcher.runs import Run
from harness.launcher.stages.data_lines import data_lines, with_plural
from harness.launcher.stages.kernel_lines import kernel_lines
from harness.launcher.stages.rate_lines import rate_lines
from harness.records.paths import SweepDir

if TYPE_CHECKING:
    from harness.compare.stats.power import Power


BUSY = 0.1
"""Share of the cores that other processes ask for from which on it is said."""


def printer(console: Console) -> Note:
    """Return a function that prints a line as it is, without markup, highlighting or wrapping."""
    return functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)


def plan_lines(sweep: SweepDir, runs: Sequence[Run], forecast: Forecast) -> list[str]:
    """Return the sweep in a few lines: its design, the size of each scale, its data, and its predicted
    duration. A design that is not a full product is listed by its blocks, smallest scale first."""
    scales = [*dict.fromkeys(run.config.scale.name for run in runs)]
    variants = [*dict.fromkeys(run.variant for run in runs)]
    seeds = sorted({run.config.seed for run in runs})
    control = runs[0].config.rule.control
    product = len(runs) == len(scales) * len(variants) * len(seeds)
    counts = (with_plural(len(scales), "scale"), with_plural(len(variants), "variant"))
    factors = " x ".join((*counts, with_plural(len(seeds), "seed")))
    lines = [
        f"{sweep.path}: {with_plural(len(runs), 'run')}; {factors if product else _count_blocks(runs)}",
        f"  variants {', '.join(name + (' (control)' if name == control else '') for name in variants)}; "
        f"seeds {', '.join(map(str, seeds))}",
        *_nothing_compared(sweep, runs),
    ]
    for scale in scales if product else _scales_by_size(runs):
        members = [run for run in runs if run.config.scale.name == scale]
        sizes = [run.facts.non_embedding for run in members]
        low, high = format_si(min(sizes)), format_si(max(sizes))
        flops = sum(run.flops for run in members)
        names = "" if product else f" ({', '.join(dict.fromkeys(run.variant for run in members))})"
        lines.append(
            f"  {scale}{names}: {low if low == high else f'{low} to {high}'} parameters (and "
            f"{format_si(members[0].facts.embedding)} in embeddings), {format_si(members[0].tokens)} tokens "
            f"in {members[0].facts.steps} steps, {format_si(flops)}FLOP in all"
        )
    lines += [*rate_lines(runs), *data_lines(runs)]
    lines += kernel_lines(runs)
    total = sum(run.flops for run in runs)
    lines.append(
        f"  {format_si(total)}FLOP on {forecast.capacity_text}: {format_clock(forecast.seconds)} predicted "
        f"to the verdict ({format_clock(forecast.low)} to {format_clock(forecast.high)})"
    )
    if forecast.demand >= BUSY:
        cores = cpu_cores()
        demand = f"others ask for {forecast.demand * cores:.1f} of its {with_plural(cores, 'core')}"
        lines.append(f"  the machine is busy: {demand}, which the prediction takes to last")
    return lines + idle_devices(runs, forecast)


@dataclass(frozen=True)
class DesignPower:
    """Statistical power of a design."""

    lines: tuple[str, ...]
    """Sentences with the smallest resolved effect and the smallest p; empty if nothing is compared."""
    design: Power | None = None
    """Power of the tests; None with one seed a scale, or nothing to compare."""
    seeds_needed: int | None = None
    """Seeds for each scale with which the sign-flip test over all pairs can reach its level."""

    @property
    def advice(self) -> list[str]:
        """A sentence with the number of seeds that the test needs, if the design has fewer."""
        seeds = min((rung.seeds for rung in self.design.rungs), default=0) if self.design else 1
        if self.seeds_needed is None or seeds >= self.seeds_needed:
            return []
        need = f"fewer than {self.seeds_needed} seeds a scale"
        return [f"The sign-flip test cannot reach its level with {need}."]


def design_power(sweep: SweepDir, runs: Sequence[Run]) -> DesignPower:
    """Compute the power of a design. Scales without a pair have none, and are listed. The noise of a scale is
    taken from an A/A library beside the sweep, if one fits."""
    from harness.compare.inputs.noise_floor import FloorKey, matching_floors
    from harness.compare.stats.power import plan_power, seeds_needed

    rule = runs[0].config.rule
    controls = {run.block: run for run in runs if run.variant == rule.control}
    pairs = [run for run in runs if run.variant != rule.control and _has_control(sweep, run, controls)]
    if not pairs:
        return DesignPower(())
    treatments = {run.variant for run in pairs}
    seeds_by_scale: dict[str, set[int]] = {}
    for run in pairs:
        seeds_by_scale.setdefault(run.config.scale.name, set()).add(run.config.seed)
    seeds = {scale: len(numbers) for scale, numbers in seeds_by_scale.items()}
    other_scales = ", ".join(scale for scale in _scales_by_size(runs) if scale not in seeds)
    notes = [f"Not compared (no pair at this scale): {other_scales}."] if other_scales else []
    min_seeds = seeds_needed(len(seeds), rule.alpha / len(treatments))
    if max(seeds.values()) < 2:
        line = "Only one seed per scale, so no confidence interval or test is possible."
        return DesignPower((line, *notes), None, min_seeds)
    keys = [
        FloorKey(run.config.scale.name, run.facts.non_embedding, run.tokens, run.facts.eval_fingerprint)
        for run in controls.values()
        if run.config.scale.name in seeds
    ]
    floors = matching_floors(sweep, keys)
    unit = pairs[0].facts.loss_unit.partition(" a ")[0]
    power = plan_power(seeds, treatments=len(treatments), floors=floors, alpha=rule.alpha, unit=unit)
    return DesignPower((power.sentence, *notes), power, min_seeds)


def _has_control(sweep: SweepDir, run: Run, controls: Mapping[str, Run]) -> bool:
    """Return True if the block of a run has a control, now or on disk, that differs in more than its name."""
    config = run.config
    if run.block not in controls:
        return sweep.run(config.scale.name, config.rule.control, config.seed).path.exists()
    keys = config_difference(config, controls[run.block].config)
    return any(not is_covered_by(key, ["variant"]) for key in keys)


def _nothing_compared(sweep: SweepDir, runs: Sequence[Run]) -> list[str]:
    """Return a line if no block has the control and another variant, in this command or on disk."""
    control, variants = runs[0].config.rule.control, {run.block: set[str]() for run in runs}
    for run in runs:
        earlier = (sweep.path / run.config.scale.name).glob(f"*/seed{run.config.seed}")
        variants[run.block] |= {run.variant, *(path.parent.name for path in earlier)}
    if any(control in names and len(names) > 1 for names in variants.values()):
        return []
    way_out = f"To compare, train both at one scale and seed: variant={control},OTHER."
    return [f"  nothing will be compared: no other variant trains beside the control {control}. {way_out}"]


def _count_blocks(runs: Sequence[Run]) -> str:
    """Return text such as `2 pairs, 3 alone`: the number of blocks by their number of variants."""
    texts = []
    for size, count in sorted(Counter(Counter(run.block for run in runs).values()).items())[::-1]:
        plural = "s" * (count > 1)
        texts.append(f"{count} " + {1: "alone", 2: f"pair{plural}"}.get(size, f"block{plural} of {size}"))
    return ", ".join(texts)


def _scales_by_size(runs: Sequence[Run]) -> list[str]:
    return [*dict.fromkeys(run.config.scale.name for run in sorted(runs, key=lambda run: run.flops))]
