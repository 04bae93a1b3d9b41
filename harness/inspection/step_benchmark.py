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

WARM_UP, BATCHES = 2, 4
"""Steps of each turn that do not count, and batches that are kept on the device and taken in turn."""
SECONDS, LEAST = 1.0, 5
"""How long a turn of the slowest variant takes, and the fewest steps of a turn."""


@dataclass(frozen=True)
class Entrant:
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
        steps = checked(arguments.steps)
        _prepare_process(block)
        print(json.dumps(measure(block, steps)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def open_block(runs: Sequence[RunDir]) -> list[Entrant]:
    """The variants in the order given. Raises UserError where they are no runs of one block."""
    block = [_entrant(run) for run in runs]
    names = [entrant.config.variant.name for entrant in block]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"variant.name={twice} is there twice: give one run of each variant of a block")
    check_block([entrant.config for entrant in block], f"{runs[0].path} and what is timed with it")
    return block


def checked(steps: int | None) -> int | None:
    if steps is not None and steps < 1:
        raise UserError(f"--steps={steps}: give 1 or more, or leave it out for about a second a turn")
    return steps


def measure(block: Sequence[Entrant], steps: int | None) -> dict[str, Any]:
    """Step times in seconds, medians by turn and over all turns, and bytes that a device must hold."""
    lanes = {entrant.config.variant.name: _lane(entrant) for entrant in block}
    peaks = {name: peak_bytes(lane) for name, lane in lanes.items()}  # compiled before anything is timed
    steps = steps or _enough([statistics.median(_turn(lane, LEAST)) for lane in lanes.values()])
    order = [*lanes, *reversed(lanes)]
    taken: dict[str, list[list[float]]] = {name: [] for name in lanes}
    for name in order:
        taken[name].append(_turn(lanes[name], steps))
    variants = {
        name: {
            "step_seconds": statistics.median(itertools.chain(*turns)),
            "turns": [statistics.median(turn) for turn in turns],
            "peak_bytes": peaks[name],
        }
        for name, turns in taken.items()
    }
    return {"scale": block[0].config.scale.name, "steps": steps, "order": order, "variants": variants}


def peak_bytes(lane: RunPrograms) -> int | None:
    """What the compiled step holds on each device; None where the platform does not say.

    A sum of what it is given, gives back and needs between, without what it gives back in place: the
    compiler's own plan, so the same in every run, unlike the memory of a process.
    """
    step: Any = lane.prepare()[1]  # loaded from the cache, it says the same as freshly compiled
    plan = step.memory_analysis()
    if plan is None:
        return None
    given, taken = plan.argument_size_in_bytes, plan.output_size_in_bytes - plan.alias_size_in_bytes
    return given + taken + plan.temp_size_in_bytes


def _turn(lane: RunPrograms, steps: int) -> list[float]:
    """Seconds of each step but the first few. The state is the turn's own: beside it no other takes memory.

    The rate is zero, so the parameters stay what they were drawn as, however many steps are timed.
    """
    import jax

    state, seconds = lane.init_state(), []
    batches = [lane.put_batch(lane.get_batch(t)) for t in range(BATCHES)]
    jax.block_until_ready((state, batches))
    for index in range(WARM_UP + steps):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(lane.step(state, batches[index % BATCHES], 0.0))
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def _enough(seconds: Sequence[float]) -> int:
    return max(LEAST, math.ceil(SECONDS / max(seconds)))


def _entrant(run: RunDir) -> Entrant:
    provenance = read_provenance(run)
    if provenance is None or not run.config.exists():
        raise UserError(f"{run.path}: no run.json and config.yaml that fit; give the directory of a run")
    return Entrant(read_config(run.config), provenance.facts)


def _lane(entrant: Entrant) -> RunPrograms:
    """On the first devices of this process: all lanes of a block have as many."""
    import jax

    from harness.data import open_data
    from harness.training.parent_checkpoint import rebuild_model
    from harness.training.programs.run_programs import make_run_programs

    config = entrant.config
    sampler = open_data(config.data).sampler(config.scale.batch, config.data_seed)
    devices = jax.devices()[: config.mesh.devices]
    model = rebuild_model(config, entrant.facts)
    return make_run_programs(config, model, devices, sampler.batch, {})


def _prepare_process(block: Sequence[Entrant]) -> None:
    """As a worker prepares its own, with the devices of one lane."""
    config = block[0].config
    if config.cluster.platform == "cpu":
        os.environ.update(cpu_env(config.mesh.devices))
        disable_malloc_trim()
    import jax

    # Programs come from a cache of our own; what JAX's gives back cannot be serialised again.
    jax.config.update("jax_enable_compilation_cache", False)
    for entrant in block:
        import_modules(entrant.config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
