"""A plan in the terminal: what is asked for, what it would take, what fails, who has the machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from harness.core import number_format
from harness.plan.cluster.clusters import GIB
from harness.plan.plan_types import MixedChips, PlannedMachine, PlannedRun, PowerUse, SweepPlan
from harness.plan.predict import EvidenceKind
from harness.report.frames.saved_plan import Part, memory_unit, time_unit
from harness.report.tables.terminal import NARROW, print_line, print_table
from harness.report.tables.text_table import Table, drop_columns, make_table, narrow_table

FAILURES = (
    "Failures: how often, when to save (Daly), and the share that trains after full restarts, with spares,"
    " with saves in memory too, and elastic"
)
Runs = tuple[PlannedRun, ...]


def print_parts(said: Sequence[Part], console: Console, *, folded: bool = False) -> None:
    """`folded`: with what is shown only to who asks for it."""
    for part in said:
        if part.folded and not folded:
            continue
        content = part.content if console.width >= NARROW else drop_columns(part.content, part.wide)
        content, same = (content, "") if part.folded else narrow_table(content)
        print_table(console, part.title, content)
        if part.lines and not content:
            console.print(Text(f"\n{part.title}", style="bold"))
        for line in (same, *part.lines):
            print_line(console, number_format.plain_text(line))


def parts(sheet: SweepPlan, power: Sequence[str]) -> tuple[Part, ...]:
    """All that is said, each under its title; one without anything to say is empty."""
    days, shown = sheet.cluster.days, short_names(sheet.runs)
    unit = time_unit(days and days.value)
    runs = tuple(run for run in sheet.runs if run.name in shown)
    return (
        Part("Models", _models(runs, shown)),
        Part("What they would take", _times(runs, shown, unit), wide=("GWh",)),
        Part("Memory of the fullest chip", _memory(runs, shown)),
        Part("Layouts", _layouts(runs, shown)),
        Part(FAILURES, _failures(runs, shown), wide=("(Young)",)),
        *(Part(_others(shown[run.name]), _alternatives(run), folded=True) for run in runs),
        Part("Machine", lines=tuple(_machine(sheet.cluster, unit))),
        Part("Not as announced", lines=(*_verdicts(runs, shown), *_outrun(sheet.cluster.meter))),
        Part("Evidence", lines=tuple(_evidence(runs))),
        Part("What the design can find out", lines=tuple(power)),
    )


def _others(name: str) -> str:
    return f"Layouts that {name} was not given, and why"


def short_names(runs: Runs) -> dict[str, str]:
    """Of the runs that are shown, one of those that differ in nothing but their seed and their turn: without
    the seed, and how many there are."""
    alike: dict[str, list[PlannedRun]] = {}
    for run in runs:
        stem, _, seed = run.name.rpartition("/")
        held = alike.setdefault(stem, [])
        if held and _unseeded(held[0]) != _unseeded(run):
            stem = f"{stem}/{seed}"
        alike.setdefault(stem, []).append(run)
    names = {held[0].name: (stem, len(held)) for stem, held in alike.items() if held}
    return {name: f"{stem} x{count}" if count > 1 else stem for name, (stem, count) in names.items()}


def _unseeded(run: PlannedRun) -> PlannedRun:
    verdict = run.verdict.replace(run.name, "")
    return dataclasses.replace(run, name="", begins=0.0, verdict=verdict)


def _models(runs: Runs, shown: dict[str, str]) -> Table:
    rows = (
        (shown[run.name], *map(number_format.format_count, (run.parameters, run.active_parameters)),
         number_format.format_count(run.flops_per_token), number_format.format_count(run.tokens))
        for run in runs
    )  # fmt: skip
    return make_table(("run", "parameters", "active", "FLOPs/token", "tokens"), rows)


def _times(runs: Runs, shown: dict[str, str], unit: tuple[str, float]) -> Table:
    name, a_day = unit
    columns = ("run", "step s [low, high]", "MFU", f"{name} [low, high]", "GWh")
    return make_table(columns, (_time_row(run, shown[run.name], a_day) for run in runs))


def _time_row(run: PlannedRun, name: str, a_day: float) -> tuple[str, ...]:
    return (
        name,
        number_format.format_interval(run.step_seconds),
        f"{run.mfu.value:.2g}" if run.mfu else number_format.MISSING,
        number_format.format_interval(run.days, a_day),
        number_format.format_number(run.gigawatt_hours and run.gigawatt_hours.value),
    )


def _memory(runs: Runs, shown: dict[str, str]) -> Table:
    """By part, beside what a plan may use."""
    unit, size = memory_unit(max(_held(run) or 0 for run in runs))
    parts = list(dict.fromkeys(part for run in runs for part in run.memory))
    rows = (
        (shown[run.name], *(number_format.format_number(held and held / size) for held in _bytes(run, parts)))
        for run in runs
    )
    return make_table((unit, *parts, "sum", "limit"), rows)


def _bytes(run: PlannedRun, parts: Sequence[str]) -> list[float | None]:
    each = [run.memory[part].value if part in run.memory else None for part in parts]
    return [*each, _held(run), run.memory_limit]


def _held(run: PlannedRun) -> float | None:
    """Bytes of its fullest device."""
    return sum(part.value for part in run.memory.values()) or None


def _layouts(runs: Runs, shown: dict[str, str]) -> Table:
    rows = (
        (shown[run.name], run.kind, f"{run.chips:,}", f"{run.devices:,}", str(run.layout or "none fits"))
        for run in runs
    )
    return make_table(("run", "kind", "chips", "in use", "layout"), rows)


def _alternatives(run: PlannedRun) -> Table:
    rows = (
        (
            str(one.layout),
            number_format.format_number(one.step_seconds),
            number_format.format_number(one.bytes / GIB),
            one.why,
        )
        for one in run.alternatives
    )
    return make_table(("layout", "step s", "GiB", "why"), rows)


def _failures(runs: Runs, shown: dict[str, str]) -> Table:
    """Empty on this machine, of whose failures nothing is known."""
    names = list(dict.fromkeys(way.name for run in runs for way in run.recovery))
    columns = ("run", "one in", "in all", "save every", "(Young)", *map(_added, names))
    rows = (_failure_row(run, shown[run.name], names) for run in runs if run.recovery)
    return make_table(columns, rows)


def _added(way: str) -> str:
    """What a way has beside those before it, in a word: `elastic, spares, saves in memory` is elastic."""
    return next(word for word in ("elastic", "memory", "spares", "restarts") if word in way)


def _failure_row(run: PlannedRun, name: str, ways: Sequence[str]) -> tuple[str, ...]:
    kept = {way.name: way for way in run.recovery}
    best = max(run.recovery, key=lambda way: way.goodput)
    return (
        name,
        f"{number_format.format_number(run.mtbf_hours, 2)} h",
        number_format.format_number(run.interruptions if run.days else None),
        f"{number_format.format_number(best.save_minutes, 2)} min",
        number_format.format_number(best.save_minutes_young, 2),
        *(f"{kept[way].goodput:.2f}" if way in kept else number_format.MISSING for way in ways),
    )


def _machine(machine: PlannedMachine, unit: tuple[str, float]) -> list[str]:
    name, a_day = unit
    lines = [
        f"{machine.name}, {share.kind}: {share.given:,} of {share.chips:,} {share.chip} given to"
        f" {len(share.runs)} run{'s' * (len(share.runs) != 1)}."
        for share in machine.shares
    ]
    if machine.days:
        ends = number_format.format_interval(machine.days, a_day)
        used = f"{machine.utilisation:.0%} of {machine.name} in use"
        lines.append(f"The last run that ends does so after {ends} {name}; {used}.")
    lines += _power(machine.meter) if machine.meter else []
    return lines + (_mixed(machine.mixed, machine.name) if machine.mixed else [])


def _power(meter: PowerUse) -> list[str]:
    runs, every = _megawatts(meter.runs), _megawatts(meter.machine)
    told = f"Power at the meter: {runs} for these runs, {every} for every chip"
    if meter.site is None:
        return [f"{told}; what the site can draw is not known."]
    return [f"{told}; the site has {_megawatts(meter.site)}."]


def _outrun(meter: PowerUse | None) -> list[str]:
    """Runs that the site cannot feed."""
    if meter is None or meter.possible or meter.site is None:
        return []
    asked, has = _megawatts(meter.runs), _megawatts(meter.site)
    lacks = f"{asked} at full load where the site has {has}"
    share = f"{meter.site / meter.runs:.0%} of their chips"
    return [f"All together: {lacks}: not all of them at once, but {share}."]


def _megawatts(value: float) -> str:
    return f"{value:,.0f} MW" if value >= 10 else f"{number_format.format_number(value)} MW"


def _mixed(mixed: MixedChips, name: str) -> list[str]:
    told = f"One job over all kinds of {name} would get {mixed.efficiency:.0%} of their products' speed"
    if mixed.won_back is None:
        return [f"{told}; not every run can be planned both ways, so their times are not compared."]
    return [
        f"{told}, and these runs, each number that of the worst kind, {mixed.days:.1f} days; with one kind"
        f" for each run {mixed.days_apart:.1f}: partition wins back a factor {mixed.won_back:.2f}."
    ]


def _verdicts(runs: Runs, shown: dict[str, str]) -> list[str]:
    """A run that fits nowhere is named in what was found."""
    return [
        run.verdict if run.name in run.verdict else f"{shown[run.name]}: {run.verdict}."
        for run in runs
        if run.verdict
    ]


def _evidence(runs: Runs) -> list[str]:
    """Each layer once, with what rests on it."""
    keys: dict[str, dict[str, None]] = {}
    for run in runs:
        for key, label in run.evidence.items():
            keys.setdefault(label, {})[key.replace("_", " ")] = None
    told = [each.value for each in EvidenceKind]
    return [f"{label}: {', '.join(keys[label])}." for label in sorted(keys, key=told.index)]
