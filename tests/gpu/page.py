"""The page docs/gpu.md."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

from tests.gpu.accelerator import Accelerator
from tests.gpu.proofs import Row

MARKS = {True: "holds", False: "**fails**", None: ""}


def render(accelerator: Accelerator | None, rows: Sequence[Row], seconds: float) -> str:
    """Return the page as Markdown."""
    name = accelerator.name if accelerator else "this CPU (a rehearsal; its plan is for an H100)"
    jax = importlib.metadata.version("jax")
    lines = [f"| {row.question} | {row.answer} | {MARKS[row.holds]} |" for row in rows]
    return "\n".join(
        [
            "# The harness on one accelerator",
            "",
            f"Written by `make test-gpu` on {name}, JAX {jax}, in {seconds:.0f} s.",
            "",
            "| question | answer | |",
            "|---|---|---|",
            *lines,
            "",
        ]
    )
