"""Recompute one effect of a sweep: `python experiments/attention/recompute.py runs/attention`."""

from __future__ import annotations

import sys
from math import isclose
from pathlib import Path

import polars as pl

import harness
from harness.compare import paired_effect


def main(path: str) -> Path:
    """Print the effects of a sweep, check the first against its evaluations, and save the first figure."""
    sweep = harness.open_sweep(path)
    print(sweep, sweep.effects, sep="\n")

    expected = sweep.comparison.rungs[0]
    evals = sweep.evals.filter(pl.col("scale") == expected.scale, pl.col("branch").is_null())
    last_evals = evals.filter(pl.col("step") == pl.col("step").max().over("variant", "seed"))
    losses = last_evals.group_by("variant", "seed").agg(pl.col("loss").mean()).pivot("variant", index="seed")
    pairs = losses.drop_nulls([expected.control, expected.variant])
    effect = paired_effect(pairs[expected.control], pairs[expected.variant])

    print(f"{expected.variant} - {expected.control} at {expected.scale}: {effect}")
    assert effect.mean is not None
    assert expected.delta.mean is not None
    assert isclose(effect.mean, expected.delta.mean, abs_tol=1e-9)
    picture = Path(path) / "pictures" / f"{sweep.figures[0]}.svg"
    picture.parent.mkdir(exist_ok=True)
    sweep.figure(sweep.figures[0]).save(picture)
    return picture


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
