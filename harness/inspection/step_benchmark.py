"""The timing pass: `python -m harness.inspection.step_benchmark [--steps N] RUN_DIR...` prints one JSON
object.

Times the training step of the variants of one block in turn, A B B A, so that a machine that slows down or
warms up meanwhile does so for all of them alike. One lane works at a time, on the same devices; that nothing
else runs is the caller's to see to. Nothing is written into the run directories.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.pair_check import check_block
from harness.config.schema.run import Config
from harness.core.cpu_flags import cpu_env, disable_malloc_trim
from harness.core.errors import UserError
from harness.models.registry import import_modules
from harness.records.paths import RunDir
from harness.records.run.config_file import read_config
from harness.records.run.provenance import Facts, read_provenance

if TYPE_CHECKING:
    from harness.training.programs.run_programs import RunPrograms

WARMUP_STEPS, CACHED_BATCHES = 2, 4
"""Steps of each turn that do not count, and batches that are kept on the device and taken in turn."""
TURN_SECONDS, MIN_STEPS = 1.0, 5
"""How long a turn of the slowest variant takes, and the fewest steps of a turn."""


@dataclass(frozen=True)
class BenchmarkedVariant:
    """One variant of the block."""

    config: Config
    facts: Facts


def main(argv: Sequence[str]) -> int:
    """Print what was measured; 2 with one sentence for a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m harness.inspection.step_benchmark")
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="a run of each variant of one block")
    parser.add_argument("--steps", type=int, help="timed steps a turn (default: about a second's)")
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


def open_block(runs: Sequence[RunDir]) -> list[BenchmarkedVariant]:
    """The variants in the order given. Raises UserError where they are no runs of one block."""
    block = [_open_variant(run) for run in runs]
    names = [variant.config.variant.name for variant in block]
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"variant.name={duplicate} is there twice: give one run of each variant of a block")
    check_block([variant.config for variant in block], f"{runs[0].path} and what is timed with it")
    return block


def check_steps(steps: int | None) -> int | None:
    if steps is not None and steps < 1:
        raise UserError(f"--steps={steps}: give 1 or more, or leave it out for about a second a turn")
    return steps


def time_block(block: Sequence[BenchmarkedVariant], steps: int | None) -> dict[str, Any]:
    """Step times in seconds, medians by turn and over all turns, and bytes that a device must hold."""
    programs_by_variant = {variant.config.variant.name: _make_programs(variant) for variant in block}
    peaks = {
        name: peak_bytes(programs) for name, programs in programs_by_variant.items()
    }  # compiled before anything is timed
    steps = steps or _steps_per_turn(
        [statistics.median(_time_turn(programs, MIN_STEPS)) for programs in programs_by_variant.values()]
    )
    order = [*programs_by_variant, *reversed(programs_by_variant)]
    turns_by_variant: dict[str, list[list[float]]] = {name: [] for name in programs_by_variant}
    for name in order:
        turns_by_variant[name].append(_time_turn(programs_by_variant[name], steps))
    variants = {
        name: {
            "step_seconds": statistics.median(itertools.chain(*turns)),
            "turns": [statistics.median(turn) for turn in turns],
            "peak_bytes": peaks[name],
        }
        for name, turns in turns_by_variant.items()
    }
    return {"scale": block[0].config.scale.name, "steps": steps, "order": order, "variants": variants}


def peak_bytes(programs: RunPrograms) -> int | None:
    """What the compiled step holds on each device; None where the platform does not say.

    A sum of what it is given, gives back and needs between, without what it gives back in place: the
    compiler's own plan, so the same in every run, unlike the memory of a process.
    """
    step: Any = programs.prepare()[1]  # loaded from the cache, it says the same as freshly compiled
    plan = step.memory_analysis()
    if plan is None:
        return None
    arguments, outputs = plan.argument_size_in_bytes, plan.output_size_in_bytes - plan.alias_size_in_bytes
    return arguments + outputs + plan.temp_size_in_bytes


def _time_turn(programs: RunPrograms, steps: int) -> list[float]:
    """Seconds of each step but the first few. The state is the turn's own: beside it no other takes memory.

    The rate is zero, so the parameters stay what they were drawn as, however many steps are timed.
    """
    import jax

    state, seconds = programs.init_state(), []
    batches = [programs.put_batch(programs.get_batch(t)) for t in range(CACHED_BATCHES)]
    jax.block_until_ready((state, batches))
    for index in range(WARMUP_STEPS + steps):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(programs.step(state, batches[index % CACHED_BATCHES], 0.0))
        seconds.append(time.perf_counter() - start)
    return seconds[WARMUP_STEPS:]


def _steps_per_turn(seconds: Sequence[float]) -> int:
    return max(MIN_STEPS, math.ceil(TURN_SECONDS / max(seconds)))


def _open_variant(run: RunDir) -> BenchmarkedVariant:
    provenance = read_provenance(run)
    if provenance is None or not run.config.exists():
        raise UserError(f"{run.path}: no run.json and config.yaml that fit; give the directory of a run")
    return BenchmarkedVariant(read_config(run.config), provenance.facts)


def _make_programs(variant: BenchmarkedVariant) -> RunPrograms:
    """On the first devices of this process: all lanes of a block have as many."""
    import jax

    from harness.data import open_data
    from harness.training.parent_checkpoint import rebuild_model
    from harness.training.programs.run_programs import make_run_programs

    config = variant.config
    sampler = open_data(config.data).sampler(config.scale.batch, config.data_seed)
    devices = jax.devices()[: config.mesh.devices]
    model = rebuild_model(config, variant.facts)
    return make_run_programs(config, model, devices, sampler.batch, {})


def _prepare_process(block: Sequence[BenchmarkedVariant]) -> None:
    """As a worker prepares its own, with the devices of one lane."""
    config = block[0].config
    if config.cluster.platform == "cpu":
        os.environ.update(cpu_env(config.mesh.devices))
        disable_malloc_trim()
    import jax

    # Programs come from a cache of our own; what JAX's gives back cannot be serialised again.
    jax.config.update("jax_enable_compilation_cache", False)
    for variant in block:
        import_modules(variant.config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
