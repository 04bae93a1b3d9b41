"""One effect of a sweep, from its frames: `python experiments/attention/recompute.py runs/attention`."""

from __future__ import annotations

import sys
from math import isclose
from pathlib import Path

import polars as pl

import harness
from harness.compare import paired_effect


def main(path: str) -> Path:
    """Print the effects of a sweep, check the first against its evaluations, draw the ladder."""
    sweep = harness.open_sweep(path)
    print(sweep, sweep.effects, sep="\n")

    told = sweep.comparison.rungs[0]
    here = sweep.evals.filter(pl.col("scale") == told.scale, pl.col("branch").is_null())
    ends = here.filter(pl.col("step") == pl.col("step").max().over("variant", "seed"))
    losses = ends.group_by("variant", "seed").agg(pl.col("loss").mean()).pivot("variant", index="seed")
    pairs = losses.drop_nulls([told.control, told.variant])
    effect = paired_effect(pairs[told.control], pairs[told.variant])

    print(f"{told.variant} - {told.control} at {told.scale}: {effect}")
    assert effect.mean is not None
    assert told.delta.mean is not None
    assert isclose(effect.mean, told.delta.mean, abs_tol=1e-9)
    picture = Path(path) / "pictures" / f"{sweep.figures[0]}.svg"
    picture.parent.mkdir(exist_ok=True)
    sweep.figure(sweep.figures[0]).save(picture)
    return picture


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
