"""What a compiled step says of itself, whatever it was compiled for."""

from __future__ import annotations

import importlib.util

import jax

from harness.lowering.step import state_bytes
from harness.records.seen import Seen, Target
from harness.training.specs import Specs


def seen_of(
    target: Target, platform: str, specs: Specs, compiled: jax.stages.Compiled, seconds: float
) -> Seen:
    """Bytes as the compiler counts them; FLOPs and traffic are read from its text, loops multiplied out."""
    sizes, counts = compiled.memory_analysis(), None
    assert sizes is not None
    if importlib.util.find_spec("harness.lowering.hlo"):  # branch hlo
        from harness.lowering.hlo import read_hlo

        counts = read_hlo(compiled.as_text() or "")
    return Seen(
        target=target,
        platform=platform,
        devices=specs.mesh.size,
        seconds=seconds,
        state_bytes=state_bytes(specs),
        argument_bytes=sizes.argument_size_in_bytes,
        temporary_bytes=sizes.temp_size_in_bytes,
        peak_bytes=sizes.peak_memory_in_bytes,
        dot_flops=counts and counts.dot_flops,
        collective_bytes=counts.collective_bytes if counts else {},
    )
