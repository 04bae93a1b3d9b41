"""What compilers say of a plan, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from harness.aot.protocol import CompileStats
from harness.config.schema.cluster import MeshConfig
from harness.core import number_format
from harness.plan.cluster.clusters import GIB
from harness.plan.compilers.queries import CompilerAnswer
from harness.plan.compilers.trainable_mesh import MESH_AXES
from harness.report.frames.saved_plan import Part
from harness.report.tables.text_table import Table, make_table


def layers_part(answers: Sequence[CompilerAnswer]) -> Part:
    """A row a step and target, and a line for what has no place in it."""
    shown = _names(answers)
    rows = _rows(answers, shown)
    lines = [line for answer in answers for line in _lines(answer, shown[answer.runs])]
    for evidence in dict.fromkeys(answer.evidence for answer in answers if answer.seen):
        targets = {answer.target.value for answer in answers if answer.evidence == evidence}
        lines.append(f"{', '.join(sorted(targets))}: {evidence}.")
    if rows:
        lines.append("In brackets the plan's closed form of the same mesh; of activations an estimate.")
    title = "What the compilers say, of one device in a step"
    return Part(title, rows, tuple(lines), wide=("limit", "reshards", "s"))


def _names(answers: Sequence[CompilerAnswer]) -> dict[tuple[str, ...], str]:
    """The first run that shares a step, and how many more do; without the seed where all have one."""
    seeds = {name.rpartition("/")[2] for answer in answers for name in answer.runs}

    def short(name: str) -> str:
        return name.rpartition("/")[0] if len(seeds) == 1 else name

    return {
        answer.runs: short(answer.runs[0]) + (f" and {len(answer.runs) - 1} more" if answer.runs[1:] else "")
        for answer in answers
    }


def _rows(answers: Sequence[CompilerAnswer], shown: dict[tuple[str, ...], str]) -> Table:
    found = [(answer, answer.seen) for answer in answers if answer.seen]
    unit, size = (
        ("GiB", GIB) if any(seen.state_bytes > GIB / 10 for _, seen in found) else ("MiB", GIB / 1024)
    )
    columns = (
        "run", "target", "devices", f"state {unit} (plan)", "peak (plan)", "limit", "FLOPs (plan)", "GB in",
        "reshards", "s",
    )  # fmt: skip
    return make_table(
        columns, (_row(answer, seen, shown[answer.runs], size) for answer, seen in found), left=2
    )


def _row(answer: CompilerAnswer, seen: CompileStats, name: str, unit: float) -> tuple[str, ...]:
    planned = answer.memory
    arrived = sum(seen.collective_bytes.values()) if seen.argument_bytes else None
    return (
        name,
        answer.target.value,
        f"{seen.devices:,}",
        _beside(seen.state_bytes / unit, (planned["weights"] + planned["optimizer"]) / unit),
        _beside(seen.peak_bytes and seen.peak_bytes / unit, sum(planned.values()) / unit),
        number_format.format_number(answer.memory_limit and answer.memory_limit / unit),
        f"{number_format.format_count(seen.dot_flops)} ({number_format.format_count(seen.executed_flops)})",
        number_format.format_number(arrived and arrived / 1e9),
        number_format.MISSING if seen.reshards is None else f"{seen.reshards:,}",
        number_format.format_number(seen.seconds, 2),
    )


def _beside(seen: float | None, planned: float) -> str:
    """What was seen, and what the plan's closed form says."""
    return f"{number_format.format_number(seen)} ({number_format.format_number(planned)})"


def _lines(answer: CompilerAnswer, name: str) -> list[str]:
    """Its mesh, what arrives by kind, what was changed to ask, why it fails."""
    seen, parts = answer.seen, list(answer.notes)
    if answer.mesh:
        parts.insert(0, _mesh(answer.mesh))
    if seen and seen.collective_bytes:
        kinds = ", ".join(
            f"{kind} {number_format.format_number(size / 1e9)}"
            for kind, size in seen.collective_bytes.items()
        )
        parts.append(f"GB received: {kinds}")
    parts += seen.uncounted if seen else []
    if seen and seen.refused:
        parts.append(f"refused: {seen.refused}")
    parts += [answer.error] if answer.error else []
    return [f"{name}, {answer.target.value}: {'; '.join(parts).rstrip('.')}."] if parts else []


def _mesh(mesh: MeshConfig) -> str:
    split = [f"{axis} {getattr(mesh, axis)}" for axis in MESH_AXES if getattr(mesh, axis) > 1]
    return " x ".join(split) or "one device"
