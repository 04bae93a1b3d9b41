"""What is printed before anything is spent: the plan, and what it can find out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from harness.config.run_identity import config_difference
from harness.core.hashing import is_covered_by
from harness.core.number_format import format_si
from harness.launcher.placement.forecast import Forecast
from harness.launcher.runs import Run
from harness.launcher.workers.progress import format_clock
from harness.records.paths import SweepDir

if TYPE_CHECKING:
    from harness.compare.stats.power import Power


Note = Callable[[str], None]


def printer(console: Console) -> Note:
    """Return a function that prints a line as it is, without markup, highlighting or wrapping."""

    def note(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    return note


def plan_lines(sweep: SweepDir, runs: Sequence[Run], outlook: Forecast) -> list[str]:
    """The sweep in a few lines: what is multiplied, how large, and what it costs. Unequal blocks are counted,
    smallest scale first."""
    scales = [*dict.fromkeys(run.config.scale.name for run in runs)]
    variants = [*dict.fromkeys(run.variant for run in runs)]
    seeds = sorted({run.config.seed for run in runs})
    control = runs[0].config.rule.control
    product = len(runs) == len(scales) * len(variants) * len(seeds)
    multiplied = f"{len(scales)} scales x {len(variants)} variants x {len(seeds)} seeds"
    lines = [
        f"{sweep.path}: {len(runs)} runs; {multiplied if product else _blocks_in_words(runs)}",
        f"  variants {', '.join(name + (' (control)' if name == control else '') for name in variants)}; "
        f"seeds {', '.join(map(str, seeds))}",
    ]
    for scale in scales if product else _by_size(runs):
        members = [run for run in runs if run.config.scale.name == scale]
        sizes = _span([run.facts.non_embedding for run in members])
        flops = sum(run.flops for run in members)
        named = "" if product else f" ({', '.join(dict.fromkeys(run.variant for run in members))})"
        lines.append(
            f"  {scale}{named}: {sizes} parameters "
            f"(and {format_si(members[0].facts.embedding)} in embeddings), "
            f"{format_si(members[0].tokens)} tokens in {members[0].facts.steps} steps, {format_si(flops)}FLOP in all"
        )
    total = sum(run.flops for run in runs)
    lines.append(
        f"  {format_si(total)}FLOP on {outlook.capacity_text}: {format_clock(outlook.schedule.makespan)} "
        f"predicted ({format_clock(outlook.low)} to {format_clock(outlook.high)})"
    )
    return lines


@dataclass(frozen=True)
class DesignPower:
    """What a design can find out."""

    lines: tuple[str, ...]
    """In words; empty where nothing is to be compared."""
    design: Power | None = None
    """None: one seed a scale, or nothing to compare."""
    seeds_needed: int | None = None
    """A scale, for the sign-flip test over all its pairs to be able to reach the level that is asked."""

    @property
    def advice(self) -> list[str]:
        """How many seeds the test asks, in words, where these are fewer."""
        there = min((rung.seeds for rung in self.design.rungs), default=0) if self.design else 1
        if self.seeds_needed is None or there >= self.seeds_needed:
            return []
        return [
            f"The sign-flip test cannot reach its level with fewer than {self.seeds_needed} seeds a scale."
        ]


def power_lines(sweep: SweepDir, runs: Sequence[Run]) -> list[str]:
    """The smallest effect that the design resolves, and the smallest p that it can attain, in words."""
    return [*design_power(sweep, runs).lines]


def design_power(sweep: SweepDir, runs: Sequence[Run]) -> DesignPower:
    """The noise of a scale is that of an A/A library beside the sweep, where one fits. Scales that have no
    pair resolve nothing, and are named."""
    from harness.compare.inputs.noise_floor import FloorKey, matching_floors
    from harness.compare.stats.power import plan_power, seeds_needed

    rule = runs[0].config.rule
    controls = {run.block: run for run in runs if run.variant == rule.control}
    treated = [run for run in runs if run.variant != rule.control and _has_control(sweep, run, controls)]
    if not treated:
        return DesignPower(())
    treatments = {run.variant for run in treated}
    seeds = {
        scale: len({run.config.seed for run in treated if run.config.scale.name == scale})
        for scale in dict.fromkeys(run.config.scale.name for run in treated)
    }
    alone = [scale for scale in _by_size(runs) if scale not in seeds]
    shown = [f"Nothing is compared at {', '.join(alone)}: no pair is there."] if alone else []
    needed = seeds_needed(len(seeds), rule.alpha / len(treatments))
    if max(seeds.values()) < 2:
        return DesignPower(("One seed a scale: there will be no interval and no test.", *shown), None, needed)
    wanted = [
        FloorKey(run.config.scale.name, run.facts.non_embedding, run.tokens, run.facts.eval_fingerprint)
        for run in controls.values()
        if run.config.scale.name in seeds
    ]
    floors = matching_floors(sweep, wanted)
    unit = treated[0].facts.loss_unit.partition(" a ")[0]
    power = plan_power(seeds, treatments=len(treatments), floors=floors, alpha=rule.alpha, unit=unit)
    return DesignPower((power.sentence, *shown), power, needed)


def _has_control(sweep: SweepDir, run: Run, controls: Mapping[str, Run]) -> bool:
    """Whether its block has the control, from now or before, and it is not that by another name."""
    config = run.config
    if run.block not in controls:
        return sweep.run(config.scale.name, config.rule.control, config.seed).path.exists()
    differing = config_difference(config, controls[run.block].config)
    return any(not is_covered_by(key, ["variant"]) for key in differing)


def _blocks_in_words(runs: Sequence[Run]) -> str:
    """`2 pairs, 3 alone`, by the number of variants that a block has."""
    sizes = Counter(Counter(run.block for run in runs).values())
    return ", ".join(
        f"{count} {_block(size, 's' * (count > 1))}" for size, count in sorted(sizes.items())[::-1]
    )


def _block(size: int, plural: str) -> str:
    return {1: "alone", 2: f"pair{plural}"}.get(size, f"block{plural} of {size}")


def _by_size(runs: Sequence[Run]) -> list[str]:
    return [*dict.fromkeys(run.config.scale.name for run in sorted(runs, key=lambda run: run.flops))]


def _span(sizes: Sequence[int]) -> str:
    low, high = min(sizes), max(sizes)
    return format_si(low) if format_si(low) == format_si(high) else f"{format_si(low)} to {format_si(high)}"
