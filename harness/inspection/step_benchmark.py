"""Benchmark of steps, `python -m harness.inspection.step_benchmark [--steps N] RUN_DIR...`, printed as JSON.

The first run is the control's. Each other variant of its block takes turns with it in quads A B B A on the
same devices, so that drift of the machine affects both alike. The caller must keep the machine idle. Nothing
is written into the run directories.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.pair_check import check_block
from harness.core.errors import UserError
from harness.core.host.host_load import OtherLoad
from harness.core.jax_setup.cpu_flags import cpu_env
from harness.core.jax_setup.malloc_options import keep_freed_memory
from harness.inspection.timing_quads import (
    MIN_STEPS,
    VISIT_STEPS,
    WARMUP_STEPS,
    Quads,
    time_limit,
    time_quads,
    visit_steps,
)
from harness.records.paths import RunDir
from harness.records.run.config_file import read_config
from harness.records.run.find_checkpoint import RunRef
from harness.records.run.provenance import read_provenance

if TYPE_CHECKING:
    from harness.training.programs.run_programs import RunPrograms

CACHED_BATCHES = 4
"""Number of batches on the device that the steps cycle through."""


def main(argv: Sequence[str]) -> int:
    """Print the measurements as JSON; return 0, or 2 after a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m harness.inspection.step_benchmark")
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="run of each variant, the control first")
    parser.add_argument("--steps", type=int, help=f"timed steps of a visit (default: at most {VISIT_STEPS})")
    arguments = parser.parse_args(argv)
    try:
        block = open_block([RunDir(Path(path)) for path in arguments.runs])
        steps = check_steps(arguments.steps)
        _prepare_process(block)
        print(json.dumps(time_block(block, steps)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def open_block(runs: Sequence[RunDir]) -> list[RunRef]:
    """Return the variants in the given order. Raises UserError if they are not runs of one block."""
    block = [_open_variant(run) for run in runs]
    names = [variant.config.variant.name for variant in block]
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"variant.name={duplicate} is there twice. Give one run of each variant of a block.")
    check_block([variant.config for variant in block], f"{runs[0].path} and the runs beside it")
    return block


def check_steps(steps: int | None) -> int | None:
    """Return the option unchanged. Raises UserError if it is below 1."""
    if steps is not None and steps < 1:
        raise UserError(f"--steps={steps}: give 1 or more, or leave it out for at most {VISIT_STEPS}")
    return steps


def time_block(block: Sequence[RunRef], steps: int | None) -> dict[str, Any]:
    """Return the log step times of every visit by treatment, and step seconds and peak bytes by variant."""
    variant_programs = {variant.config.variant.name: _make_programs(variant) for variant in block}
    # Memory first, because it compiles the programs before any step is timed.
    peaks = {name: peak_bytes(programs) for name, programs in variant_programs.items()}
    other_load, start, visit = OtherLoad(), time.perf_counter(), _Visits(variant_programs)
    seconds = {name: statistics.median(visit(name, MIN_STEPS)) for name in variant_programs}
    training = sum(seconds[v.config.variant.name] * v.provenance.facts.steps for v in block)
    control, *treatments = seconds
    limit = time_limit(training)
    steps = steps or visit_steps([seconds[control] + seconds[name] for name in treatments], limit)
    quads = time_quads(control, treatments, visit, steps, limit)
    step_seconds = _step_seconds(control, quads)
    return {
        "scale": block[0].config.scale.name,
        "control": control,
        "steps": steps,
        "visits": quads,
        "variants": {
            name: {"step_seconds": step_seconds.get(name, seconds[name]), "peak_bytes": peaks[name]}
            for name in seconds
        },
        "others_share": other_load.share(),
        "seconds": time.perf_counter() - start,
    }


def _step_seconds(control: str, quads: Quads) -> dict[str, float]:
    """Return the median over the visits of their statistic, in seconds a step, by variant."""
    logs: dict[str, list[float]] = {}
    for name, rows in quads.items():
        for a1, b1, b2, a2 in rows:
            logs.setdefault(control, []).extend((a1, a2))
            logs.setdefault(name, []).extend((b1, b2))
    return {name: math.exp(statistics.median(values)) for name, values in logs.items()}


def peak_bytes(programs: RunPrograms) -> int | None:
    """Return the bytes of the compiled step on each device; None if the platform does not report them.

    The sum of arguments, outputs and temporaries, less donated buffers, by the compiler's own plan. It is the
    same in every run, unlike the memory of a process.
    """
    step: Any = programs.prepare()[1]  # a cached program reports the same
    plan = step.memory_analysis()
    if plan is None:
        return None
    arguments, outputs = plan.argument_size_in_bytes, plan.output_size_in_bytes - plan.alias_size_in_bytes
    return arguments + outputs + plan.temp_size_in_bytes


class _Visits:
    """Visits of the variants, at learning rate 0. Only one state is in memory at a time."""

    def __init__(self, programs: Mapping[str, RunPrograms]) -> None:
        self._programs = programs
        self._loaded: tuple[str, Any, list[Any]] | None = None

    def __call__(self, variant: str, steps: int) -> list[float]:
        """Return the seconds of each timed step of one visit."""
        import jax

        from harness.training.step_inputs import resting_inputs

        if self._loaded is None or self._loaded[0] != variant:
            self._load(variant)
        assert self._loaded is not None
        _, state, batches = self._loaded
        programs, seconds = self._programs[variant], []
        step, inputs = programs.step, resting_inputs(programs.config, clock=programs.has_clock)
        for index in range(WARMUP_STEPS + steps):
            start = time.perf_counter()
            state, _ = jax.block_until_ready(step(state, batches[index % CACHED_BATCHES], inputs))
            seconds.append(time.perf_counter() - start)
        self._loaded = variant, state, batches
        return seconds[WARMUP_STEPS:]

    def _load(self, variant: str) -> None:
        import jax

        self._loaded = None  # the other variant's state goes first
        programs = self._programs[variant]
        batches = [programs.put_batch(programs.get_batch(t)) for t in range(CACHED_BATCHES)]
        self._loaded = variant, *jax.block_until_ready((programs.init_state(), batches))


def _open_variant(run: RunDir) -> RunRef:
    provenance = read_provenance(run)
    if provenance is None or not run.config.exists():
        raise UserError(f"{run.path} has no valid run.json and config.yaml. Give the directory of a run.")
    return RunRef(run, None, read_config(run.config), provenance)


def _make_programs(variant: RunRef) -> RunPrograms:
    """Build the programs on the first devices of this process. All variants of a block use equally many."""
    import jax

    from harness.data import open_data
    from harness.training.parent_checkpoint import rebuild_model
    from harness.training.programs.run_programs import make_run_programs

    config = variant.config
    sampler = open_data(config.data).sampler(config.scale.batch, config.data_seed)
    devices = jax.devices()[: config.mesh.devices]
    model = rebuild_model(config, variant.provenance.facts)
    return make_run_programs(config, model, devices, sampler.batch, {})


def _prepare_process(block: Sequence[RunRef]) -> None:
    """Set up the process as a worker does, with the devices of one run."""
    config = block[0].config
    if config.cluster.platform == "cpu":
        os.environ.update(cpu_env(config.mesh.devices))
        keep_freed_memory(max(variant.provenance.parameters for variant in block))
    import jax

    from harness.models.registry import import_modules

    # Programs have their own cache; those from JAX's cache cannot be serialised again.
    jax.config.update("jax_enable_compilation_cache", False)
    for variant in block:
        import_modules(variant.config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
