"""Time and memory of `compare` over a sweep of many runs, each with a long curve.

`python -m tests.bench.comparison FOLDER RUNS` makes such a sweep if it is not there, compares it, and prints
the CPU seconds of each of five calls and the peak MiB of this process, as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.compare import compare
from harness.records.paths import SweepDir
from harness.records.run import metrics
from tests.compare.synthetic import Draft, Recipe, draw, write_rule, write_run

POINTS = 10_000


def main(folder: Path, runs: int) -> None:
    sweep = SweepDir(folder / str(runs))
    if not sweep.path.exists():
        write(sweep, runs)
    seconds, found = [], None
    for _ in range(5):
        start = time.process_time()
        found = compare(sweep)
        seconds.append(time.process_time() - start)
    assert found is not None
    assert sum(rung.n for rung in found.rungs) == runs // 2, found.verdict
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"runs": runs, "seconds": seconds, "mib": peak}))


def write(sweep: SweepDir, runs: int) -> None:
    """Five scales, two variants, a tenth of `runs` seeds; POINTS evaluations a run."""
    scales = {f"s{i}": 10**7 * 2**i for i in range(5)}
    recipe = Recipe(scales=scales, seeds=tuple(range(runs // 10)), points=2, steps=POINTS, with_steps=False)
    rng = np.random.default_rng(0)
    write_rule(sweep, recipe)
    for scale in scales:
        for seed in recipe.seeds:
            for variant in recipe.variants:
                _write_long(sweep, draw(recipe, scale, variant, seed, rng.normal(), rng), rng)


def _write_long(sweep: SweepDir, draft: Draft, rng: np.random.Generator) -> None:
    """A run whose one evaluation at the end has a noisy curve of POINTS before it."""
    last, draft.evals = draft.evals[-1], []
    run, step = write_run(sweep, draft), np.arange(1, POINTS + 1)
    for part in metrics.list_parts(run, "evals"):
        part.path.unlink()
    frame: Any = pl.DataFrame(
        {
            "step": step,
            "tokens": step * (last["tokens"] // POINTS),
            "flops": step * (last["flops"] / POINTS),
            "domain": [last["domain"]] * POINTS,
            "loss": last["loss"] + 0.03 * rng.normal(size=POINTS) * (step < POINTS),
            "bits_per_byte": np.full(POINTS, last["bits_per_byte"]),
            "decayed": step == POINTS,
            "device_seconds": step * 0.01,
        }
    )
    metrics.write_part(run, "evals", 0, POINTS, frame)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
