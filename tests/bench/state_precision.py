"""Effect of bfloat16 state on the loss, with stochastic rounding and with rounding to the nearest value.

`python -m tests.bench.state_precision SEEDS [OVERRIDES]` trains each way from the same seeds on the same
examples, in this process, and prints the paired difference of the final held-out loss from float32 with its
95 % interval over seeds. The harness itself has no rounding to the nearest value to offer.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
from pathlib import Path

from harness.core.jax_setup.cpu_flags import cpu_env

os.environ.update(cpu_env(1))

import jax.numpy as jnp
import polars as pl

from harness.compare.stats.paired_effects import paired_effect
from harness.config.compose import compose
from harness.records.run.metrics import read_curve
from harness.training.optimizers.rounding import stored_dtypes
from harness.training.programs import lowerings
from harness.training.run import train_run
from tests.prepared import prepare_run
from tests.training.runs import assignment, lane

TASK = ("scale=xs", "scale.tokens=250000", "optimizer.learning_rate=0.003", "schedule.branches=[]")
"""488 steps of 512 tokens. At its peak a typical update is half the distance to the next bfloat16 value of a
typical weight, as in models of a billion parameters, and later less."""
WAYS = {
    "float32": (),
    "parameters": ("compute.parameter_dtype=bfloat16",),
    "moments": ("optimizer.moment_dtype=bfloat16",),
    "both": ("compute.parameter_dtype=bfloat16", "optimizer.moment_dtype=bfloat16"),
}


def main(seeds: int, overrides: list[str]) -> None:
    losses = {name: final_losses(seeds, *WAYS[name], *overrides) for name in WAYS}
    stochastic, stored_dtypes.round_to_bfloat16 = stored_dtypes.round_to_bfloat16, _nearest
    lowerings._lowerings.clear()
    losses |= {
        f"{name}, nearest": final_losses(seeds, *WAYS[name], *overrides) for name in WAYS if name != "float32"
    }
    stored_dtypes.round_to_bfloat16 = stochastic
    for name, found in losses.items():
        effect = paired_effect(losses["float32"], found)
        print(
            f"{name:22} {sum(found) / seeds:.4f}  {effect.mean:+.4f}  [{effect.low:+.4f}, {effect.high:+.4f}]"
        )


def final_losses(seeds: int, *overrides: str) -> list[float]:
    """Mean over the held-out domains at the end of each run."""
    losses = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            run = prepare_run(Path(folder) / "sweep", compose([*TASK, *overrides, f"seed={seed}"]))
            train_run(assignment(run), lane(run), threading.Event())
            rows = read_curve(run, "evals")
            losses.append(statistics.mean(rows.filter(pl.col("step") == rows["step"].max())["loss"]))
    return losses


def _nearest(x, key, path):
    return x.astype(jnp.bfloat16)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
