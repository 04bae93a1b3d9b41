"""Plan in the terminal: models, times, memory, layouts, failures, the machine and the evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from harness.core.number_format import (
    GIB,
    MISSING,
    choose_memory_unit,
    choose_time_unit,
    format_count,
    format_interval,
    format_number,
)
from harness.plan.allocation.allocated_run import SHARED_LAYOUT
from harness.plan.plan_types import MixedChips, PlannedMachine, PlannedRun, PowerUse, SweepPlan
from harness.plan.predict import EvidenceKind
from harness.report.frames.saved_plan import PlanSection
from harness.report.tables.text_table import Table, make_table

FAILURES = (
    "Failures: how often, when to save (Daly), and the share of time that trains: with full restarts, spares,"
    " saves in memory too, and elastic"
)
Runs = tuple[PlannedRun, ...]


def plan_sections(plan: SweepPlan, power: Sequence[str]) -> tuple[PlanSection, ...]:
    """Build all sections of a plan; some may be empty. `power` describes what the design can detect."""
    cluster, names = plan.cluster, short_names(plan.runs)
    unit = choose_time_unit(cluster.days and cluster.days.value)
    runs = tuple(run for run in plan.runs if run.name in names)
    rejected = "Layouts rejected for {}, and why"
    miss_lines = (*_verdict_lines(runs, names), *_power_shortage(cluster.meter))
    return (
        PlanSection("Models", _model_table(runs, names)),
        PlanSection("Predicted step time and duration", _time_table(runs, names, unit)),
        PlanSection("Memory of the fullest chip", _memory_table(runs, names)),
        PlanSection("Layouts", _layout_table(runs, names), tuple(_shared_layouts(runs, names))),
        PlanSection(FAILURES, _failure_table(runs, names)),
        *(PlanSection(rejected.format(names[r.name]), _alternative_table(r), folded=True) for r in runs),
        PlanSection("Machine", lines=tuple(_machine_lines(cluster, unit))),
        PlanSection("Runs that miss the plan", lines=miss_lines),
        PlanSection("Evidence", lines=tuple(_evidence_lines(runs))),
        PlanSection("Statistical power of the design", lines=tuple(power)),
    )


def short_names(runs: Runs) -> dict[str, str]:
    """Return short names of the runs to show: one of each group of runs that differ only in seed and round,
    named without the seed and with the size of the group."""
    runs_by_stem: dict[str, list[PlannedRun]] = {}
    for run in runs:
        stem, _, seed = run.name.rpartition("/")
        group = runs_by_stem.setdefault(stem, [])
        if group and _without_seed(group[0]) != _without_seed(run):
            stem = f"{stem}/{seed}"
        runs_by_stem.setdefault(stem, []).append(run)
    names = {group[0].name: (stem, len(group)) for stem, group in runs_by_stem.items() if group}
    return {name: f"{stem} x{count}" if count > 1 else stem for name, (stem, count) in names.items()}


def _without_seed(run: PlannedRun) -> PlannedRun:
    verdict = run.verdict.replace(run.name, "")
    return dataclasses.replace(run, name="", begins=0.0, verdict=verdict)


def _model_table(runs: Runs, names: dict[str, str]) -> Table:
    rows = (
        (names[run.name], *map(format_count, (run.parameters, run.active_parameters)),
         format_count(run.flops_per_token), format_count(run.tokens))
        for run in runs
    )  # fmt: skip
    return make_table(("run", "parameters", "active", "FLOPs/token", "tokens"), rows)


def _time_table(runs: Runs, names: dict[str, str], unit: tuple[str, float]) -> Table:
    name, per_day = unit
    rows = (
        (names[run.name], format_interval(run.step_seconds), f"{run.mfu.value:.2g}" if run.mfu else MISSING,
         format_interval(run.days, per_day), format_number(run.gigawatt_hours and run.gigawatt_hours.value))
        for run in runs
    )  # fmt: skip
    return make_table(("run", "step s [low, high]", "MFU", f"{name} [low, high]", "GWh"), rows)


def _memory_table(runs: Runs, names: dict[str, str]) -> Table:
    """Build the table of memory by part, with the limit of a plan."""
    totals = {run.name: sum(part.value for part in run.memory.values()) or None for run in runs}
    unit, size = choose_memory_unit(max(total or 0 for total in totals.values()))
    parts = list(dict.fromkeys(part for run in runs for part in run.memory))
    rows = []
    for run in runs:
        by_part = [run.memory[part].value if part in run.memory else None for part in parts]
        amounts = [*by_part, totals[run.name], run.memory_limit]
        rows.append((names[run.name], *(format_number(amount and amount / size) for amount in amounts)))
    return make_table((unit, *parts, "sum", "limit"), rows)


def _layout_table(runs: Runs, names: dict[str, str]) -> Table:
    columns = ("run", "kind", "chips", "in use", "layout", "fixed by the config")
    rows = (
        (names[run.name], run.kind, f"{run.chips:,}", f"{run.devices:,}", str(run.layout or "none fits"),
         ", ".join(run.fixed) or MISSING)
        for run in runs
    )  # fmt: skip
    return make_table(columns, rows)


def _shared_layouts(runs: Runs, names: dict[str, str]) -> list[str]:
    return [f"{names[run.name]} {SHARED_LAYOUT}." for run in runs if SHARED_LAYOUT in run.notes]


def _alternative_table(run: PlannedRun) -> Table:
    rows = (
        (str(rejected.layout), format_number(rejected.step_seconds), format_number(rejected.bytes / GIB),
         rejected.why)
        for rejected in run.alternatives
    )  # fmt: skip
    return make_table(("layout", "step s", "GiB", "why"), rows)


def _failure_table(runs: Runs, names: dict[str, str]) -> Table:
    """Build the table of failures, which is empty on this machine, whose failure rate is not known."""
    options = list(dict.fromkeys(option.name for run in runs for option in run.recovery))
    columns = ("run", "one in", "in all", "save every", "(Young)", *map(_added, options))
    rows = (_failure_row(run, names[run.name], options) for run in runs if run.recovery)
    return make_table(columns, rows)


def _added(option: str) -> str:
    """Name what an option adds to the one before it: `elastic, spares, saves in memory` adds elastic."""
    return next(word for word in ("elastic", "memory", "spares", "restarts") if word in option)


def _failure_row(run: PlannedRun, name: str, options: Sequence[str]) -> tuple[str, ...]:
    goodput = {option.name: f"{option.goodput:.2f}" for option in run.recovery}
    best = max(run.recovery, key=lambda option: option.goodput)
    return (
        name, f"{format_number(run.mtbf_hours, 2)} h", format_number(run.interruptions if run.days else None),
        f"{format_number(best.save_minutes, 2)} min", format_number(best.save_minutes_young, 2),
        *(goodput.get(option, MISSING) for option in options),
    )  # fmt: skip


def _machine_lines(machine: PlannedMachine, unit: tuple[str, float]) -> list[str]:
    name, per_day = unit
    lines = [
        f"{machine.name}, {share.kind}: {share.given:,} of {share.chips:,} {share.chip} given to"
        f" {len(share.runs)} run{'s' * (len(share.runs) != 1)}."
        for share in machine.shares
    ]
    if machine.days:
        ends = format_interval(machine.days, per_day)
        used = f"{machine.utilisation:.0%} of {machine.name} in use"
        lines.append(f"The last run that ends does so after {ends} {name}; {used}.")
    lines += _power(machine.meter) if machine.meter else []
    return lines + (_mixed_lines(machine.mixed, machine.name) if machine.mixed else [])


def _power(meter: PowerUse) -> list[str]:
    runs, machine = _megawatts(meter.runs), _megawatts(meter.machine)
    text = f"Power at the meter: {runs} for these runs, {machine} for every chip"
    if meter.site is None:
        return [f"{text}; the limit of the site is not known."]
    return [f"{text}; the site has {_megawatts(meter.site)}."]


def _power_shortage(meter: PowerUse | None) -> list[str]:
    """Say so if the site cannot feed all runs at once."""
    if meter is None or meter.possible or meter.site is None:
        return []
    need, has = _megawatts(meter.runs), _megawatts(meter.site)
    share = f"{meter.site / meter.runs:.0%} of their chips"
    return [f"All runs at once need {need} at full load, and the site has {has}: enough for {share}."]


def _megawatts(value: float) -> str:
    return f"{value:,.0f} MW" if value >= 10 else f"{format_number(value)} MW"


def _mixed_lines(mixed: MixedChips, name: str) -> list[str]:
    text = f"One job over all kinds of {name} would get {mixed.efficiency:.0%} of their matrix-product speed"
    if mixed.won_back is None:
        return [f"{text}; not every run can be planned both ways, so their times are not compared."]
    return [
        f"{text}, and these runs would take {mixed.days:.1f} days, with every number that of the worst kind."
        f" With one kind for each run they take {mixed.days_apart:.1f}, a factor {mixed.won_back:.2f} less."
    ]


def _verdict_lines(runs: Runs, names: dict[str, str]) -> list[str]:
    """Return a sentence per run that misses the plan. Some verdicts name their run already."""
    missing = [run for run in runs if run.verdict]
    return [r.verdict if r.name in r.verdict else f"{names[r.name]}: {r.verdict}." for r in missing]


def _evidence_lines(runs: Runs) -> list[str]:
    """Return a line per kind of evidence, with the numbers that rest on it."""
    keys: dict[str, dict[str, None]] = {}
    for run in runs:
        for key, label in run.evidence.items():
            keys.setdefault(label, {})[key.replace("_", " ")] = None
    order = [kind.value for kind in EvidenceKind]
    return [f"{label}: {', '.join(keys[label])}." for label in sorted(keys, key=order.index)]
