"""Stats of a compiled step, for any target."""

from __future__ import annotations

import jax

from harness.aot.hlo import read_hlo
from harness.aot.protocol import CompileStats, Target
from harness.aot.train_step import state_bytes
from harness.training.programs.program_specs import ProgramSpecs


def compile_stats(
    target: Target, platform: str, specs: ProgramSpecs, compiled: jax.stages.Compiled, seconds: float
) -> CompileStats:
    """Return the stats of a compiled step. Bytes come from the compiler's memory analysis; FLOPs and traffic
    from its HLO text, times the trip counts of loops. `seconds`: wall time of the compilation."""
    sizes, counts = compiled.memory_analysis(), read_hlo(compiled.as_text() or "")
    assert sizes is not None
    return CompileStats(
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
            *(f"loop {name} counted as one iteration" for name in counts.unknown_loops),
            *(f"kernel {name} not read" for name in counts.unread_kernels),
        ],
    )
