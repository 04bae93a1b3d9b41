"""Answers of compilers about the steps of a plan, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from harness.aot.protocol import CompileStats
from harness.core.number_format import GIB, MISSING, format_count, format_number
from harness.estimate.layout_limits import MESH_AXES
from harness.plan.compilers.queries import CompilerAnswer
from harness.report.frames.saved_plan import PlanSection
from harness.report.tables.text_table import Table, make_table


def compiler_section(answers: Sequence[CompilerAnswer]) -> PlanSection:
    """Build the section: one row per step and target, and lines of notes."""
    names = _step_names(answers)
    rows = _step_table(answers, names)
    lines = [line for answer in answers for line in _notes(answer, names[answer.runs])]
    for evidence in dict.fromkeys(answer.evidence for answer in answers if answer.seen):
        targets = {answer.target.value for answer in answers if answer.evidence == evidence}
        lines.append(f"{', '.join(sorted(targets))}: {evidence}.")
    if rows:
        lines.append("In brackets: the plan's closed form for the same mesh; activations are an estimate.")
    title = "Compiled step, on one device"
    return PlanSection(title, rows, tuple(lines))


def _step_names(answers: Sequence[CompilerAnswer]) -> dict[tuple[str, ...], str]:
    """Name each step by its first run and the number of others, without a seed that all runs share."""
    seeds = {name.rpartition("/")[2] for answer in answers for name in answer.runs}

    def short(name: str) -> str:
        return name.rpartition("/")[0] if len(seeds) == 1 else name

    return {
        answer.runs: short(answer.runs[0]) + (f" and {len(answer.runs) - 1} more" if answer.runs[1:] else "")
        for answer in answers
    }


def _step_table(answers: Sequence[CompilerAnswer], names: dict[tuple[str, ...], str]) -> Table:
    compiled = [(answer, answer.seen) for answer in answers if answer.seen]
    large = any(stats.state_bytes > GIB / 10 for _, stats in compiled)
    unit, size = ("GiB", GIB) if large else ("MiB", GIB / 1024)
    columns = (
        "run", "target", "devices", f"state {unit} (plan)", "peak (plan)", "limit", "FLOPs (plan)", "GB in",
        "reshards", "s",
    )  # fmt: skip
    rows = (_row(answer, stats, names[answer.runs], size) for answer, stats in compiled)
    return make_table(columns, rows, left=2)


def _row(answer: CompilerAnswer, stats: CompileStats, name: str, unit: float) -> tuple[str, ...]:
    planned = answer.memory
    bytes_in = sum(stats.collective_bytes.values()) if stats.argument_bytes else None
    return (
        name, answer.target.value, f"{stats.devices:,}",
        _with_planned(stats.state_bytes / unit, (planned["weights"] + planned["optimizer"]) / unit),
        _with_planned(stats.peak_bytes and stats.peak_bytes / unit, sum(planned.values()) / unit),
        format_number(answer.memory_limit and answer.memory_limit / unit),
        f"{format_count(stats.dot_flops)} ({format_count(stats.executed_flops)})",
        format_number(bytes_in and bytes_in / 1e9),
        MISSING if stats.reshards is None else f"{stats.reshards:,}", format_number(stats.seconds, 2),
    )  # fmt: skip


def _with_planned(compiled: float | None, planned: float) -> str:
    """Return a compiled value with the planned one in brackets."""
    return f"{format_number(compiled)} ({format_number(planned)})"


def _notes(answer: CompilerAnswer, name: str) -> list[str]:
    """Return a line with the mesh, bytes received by kind, changes to the config, and the error, if any."""
    stats, parts = answer.seen, list(answer.notes)
    if answer.mesh:
        axes = [(axis, getattr(answer.mesh, axis)) for axis in MESH_AXES]
        parts.insert(0, " x ".join(f"{axis} {size}" for axis, size in axes if size > 1) or "one device")
    if stats and stats.collective_bytes:
        kinds = (f"{kind} {format_number(size / 1e9)}" for kind, size in stats.collective_bytes.items())
        parts.append(f"GB received: {', '.join(kinds)}")
    parts += stats.uncounted if stats else []
    if stats and stats.refused:
        parts.append(f"refused: {stats.refused}")
    parts += [answer.error] if answer.error else []
    return [f"{name}, {answer.target.value}: {'; '.join(parts).rstrip('.')}."] if parts else []
