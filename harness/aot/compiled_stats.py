"""What a compiled step says of itself, whatever it was compiled for."""

from __future__ import annotations

import jax

from harness.aot.hlo import read_hlo
from harness.aot.protocol import Seen, Target
from harness.aot.train_step import state_bytes
from harness.training.programs.program_specs import Specs


def seen_of(
    target: Target, platform: str, specs: Specs, compiled: jax.stages.Compiled, seconds: float
) -> Seen:
    """Bytes as the compiler counts them; FLOPs and traffic are read from its text, loops multiplied out."""
    sizes, counts = compiled.memory_analysis(), read_hlo(compiled.as_text() or "")
    assert sizes is not None
    return Seen(
        target=target,
        platform=platform,
        devices=specs.mesh.size,
        seconds=seconds,
        state_bytes=state_bytes(specs),
        argument_bytes=sizes.argument_size_in_bytes,
        temporary_bytes=sizes.temp_size_in_bytes,
        peak_bytes=sizes.peak_memory_in_bytes,
        dot_flops=counts.dot_flops,
        collective_bytes=counts.collective_bytes,
        uncounted=[
            *(f"loop {name} counted as one turn" for name in counts.unknown_loops),
            *(f"kernel {name} not read" for name in counts.unread_kernels),
        ],
    )
