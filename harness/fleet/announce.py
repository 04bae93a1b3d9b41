"""What is printed before anything is spent: the plan, and what it can find out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.config.identity import difference, within
from harness.fleet.outlook import Outlook
from harness.fleet.progress import clock
from harness.fleet.runs import Run
from harness.records.layout import SweepDir


def plan_lines(sweep: SweepDir, runs: Sequence[Run], outlook: Outlook) -> list[str]:
    """The sweep in a few lines: what is multiplied, how large, and what it costs."""
    scales = unique(run.config.scale.name for run in runs)
    variants = unique(run.variant for run in runs)
    seeds = sorted({run.config.seed for run in runs})
    control = runs[0].config.rule.control
    lines = [
        f"{sweep.path}: {len(runs)} runs; "
        f"{len(scales)} scales x {len(variants)} variants x {len(seeds)} seeds",
        f"  variants {', '.join(name + (' (control)' if name == control else '') for name in variants)}; "
        f"seeds {', '.join(map(str, seeds))}",
    ]
    for scale in scales:
        members = [run for run in runs if run.config.scale.name == scale]
        sizes = _span([run.facts.non_embedding for run in members])
        flops = sum(run.flops for run in members)
        lines.append(
            f"  {scale}: {sizes} parameters (and {short(members[0].facts.embedding)} in embeddings), "
            f"{short(members[0].tokens)} tokens in {members[0].facts.steps} steps, {short(flops)}FLOP in all"
        )
    total = sum(run.flops for run in runs)
    lines.append(
        f"  {short(total)}FLOP on {outlook.place}: {clock(outlook.plan.makespan)} predicted "
        f"({clock(outlook.low)} to {clock(outlook.high)})"
    )
    return lines


def power_lines(sweep: SweepDir, runs: Sequence[Run]) -> list[str]:
    """The smallest effect that the design resolves, and the smallest p that it can attain.

    The noise of a scale is that of an A/A library beside the sweep, where one fits.
    """
    from harness.compare.library import Wanted, fitting_floors
    from harness.compare.power import plan_power

    rule = runs[0].config.rule
    controls = {run.block: run for run in runs if run.variant == rule.control}
    treatments = {run.variant for run in runs if _differs(run, controls.get(run.block))} - {rule.control}
    if not treatments:
        return []
    seeds = {
        scale: len({run.config.seed for run in runs if run.config.scale.name == scale})
        for scale in unique(run.config.scale.name for run in runs)
    }
    if max(seeds.values()) < 2:
        return ["One seed a scale: there will be no interval and no test."]
    wanted = [
        Wanted(run.config.scale.name, run.facts.non_embedding, run.tokens, run.facts.eval_fingerprint)
        for run in controls.values()
    ]
    floors = fitting_floors(sweep, wanted)
    unit = runs[0].facts.loss_unit.partition(" a ")[0]
    return [
        plan_power(seeds, treatments=len(treatments), floors=floors, alpha=rule.alpha, unit=unit).sentence
    ]


def _differs(run: Run, control: Run | None) -> bool:
    """Whether it is more than the control under another name."""
    return control is None or any(
        not within(key, ["variant"]) for key in difference(run.config, control.config)
    )


def unique(names: Any) -> list[str]:
    return [*dict.fromkeys(names)]


def short(number: float) -> str:
    """Three digits and a unit: 1.23 M."""
    for unit in ("", "k", "M", "G", "T", "P", "E"):
        if abs(number) < 1000:
            return f"{number:.3g} {unit}".rstrip() if not unit else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} Z"


def _span(sizes: Sequence[int]) -> str:
    low, high = min(sizes), max(sizes)
    return short(low) if short(low) == short(high) else f"{short(low)} to {short(high)}"
