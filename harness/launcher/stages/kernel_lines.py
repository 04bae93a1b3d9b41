"""Lines that name the kernels of a sweep on accelerators, and say where its variants differ in them."""

from __future__ import annotations

from collections.abc import Sequence

from harness.launcher.runs import Run


def kernel_lines(runs: Sequence[Run]) -> list[str]:
    """Return a line for each set of kernels, and one if variants of one scale differ in them. There are none
    on a CPU, where everything is the reference."""
    on_accelerators = [run for run in runs if run.config.cluster.platform != "cpu" and run.facts.kernels]
    users: dict[str, dict[str, None]] = {}
    kinds: dict[str, set[frozenset[str]]] = {}
    for run in on_accelerators:
        users.setdefault("; ".join(run.facts.kernels), {})[f"{run.config.scale.name}/{run.variant}"] = None
        kinds.setdefault(run.config.scale.name, set()).add(_names(run))
    if len(users) == 1:
        return [f"  kernels: {kernels}" for kernels in users]
    lines = [f"  kernels of {', '.join(names)}: {kernels}" for kernels, names in users.items()]
    if any(len(names) > 1 for names in kinds.values()):
        lines.append(
            "  the variants differ in kernels, and so in speed and rounding: compute.kernels=reference gives"
            " all of them the same"
        )
    return lines


def _names(run: Run) -> frozenset[str]:
    """Return the kernels of a run without the number of their layers."""
    return frozenset(phrase.partition(" in ")[0].partition(" (")[0] for phrase in run.facts.kernels)
