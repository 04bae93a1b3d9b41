"""Whatever is done to an honest log, its verdict never becomes a direction that the log does not have."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from harness.compare import compare_curves
from harness.compare.results.verdict_types import Decision
from harness.core.errors import UserError

DIRECTIONS = (Decision.A_BETTER, Decision.B_BETTER)
STEPS = np.arange(0, 2001, 100)
COOLDOWN = 1600
"""Step from which on the learning rate falls."""
STORIES = {
    "better": (-0.03, -0.03),
    "worse": (0.03, 0.03),
    "no different": (0.0, 0.0),
    "ahead while hot, worse at the end": (-0.05, 0.02),
    "behind while hot, better at the end": (0.05, -0.02),
}
"""Difference of the treatment while the learning rate is hot, and at the end."""
EVIDENCE = ("decayed", "learning_rate", "nothing")
"""Column that shows the decay."""


def honest_log(story: str, evidence: str, random: np.random.Generator) -> pl.DataFrame:
    """Logs of control and treatment at two scales, from near ln V down, cooled over the last fifth."""
    hot, end = STORIES[story]
    cooled = np.clip((STEPS - COOLDOWN) / (STEPS[-1] - COOLDOWN), 0, 1)
    rate = 0.01 * (1 - 0.99 * cooled)
    seeds = int(random.integers(3, 7))
    parts = []
    for scale, parameters in (("small", 1_000_000), ("large", 10_000_000)):
        base = 2.8 if scale == "large" else 3.2
        curve = base + 7.6 * (1 + STEPS / 20) ** -0.6 - 0.1 * cooled
        for variant in ("a", "b"):
            effect = 0.0 if variant == "a" else np.where(STEPS > 0, hot + (end - hot) * cooled, 0.0)
            for seed in range(seeds):
                noise = 0.001 * random.normal(size=STEPS.size)
                parts.append(
                    pl.DataFrame({
                        "variant": variant, "scale": scale, "seed": seed, "step": STEPS,
                        "tokens": STEPS * 10_000, "loss": curve + effect + noise, "parameters": parameters,
                        "decayed": STEPS[-1] == STEPS, "learning_rate": rate,
                    })
                )  # fmt: skip
    frame = pl.concat(parts)
    return frame.drop([name for name in ("decayed", "learning_rate") if name != evidence])


def some_arm(random: np.random.Generator) -> pl.Expr:
    """Rows of the treatment, of the control, or of both."""
    return pl.col("variant").is_in([["a"], ["b"], ["a", "b"]][random.integers(3)])


def drop_seeds(frame: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """Leave out whole runs, so that few pairs or none are left."""
    dropped = some_arm(random) & (pl.col("seed") >= int(random.integers(1, 4)))
    return frame.filter(~dropped)


def shift_seeds(frame: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """Number the seeds of one arm otherwise, so that no pair matches."""
    return frame.with_columns(
        pl.when(pl.col("variant") == "b").then(pl.col("seed") + 50).otherwise("seed").alias("seed")
    )


def cut_in_the_middle(frame: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    return frame.filter(pl.col("step") <= random.uniform(0.2, 0.95) * STEPS[-1])


def break_off_an_arm(frame: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    longest = random.uniform(0.2, 0.98) * STEPS[-1]
    return frame.filter(~(some_arm(random) & (pl.col("step") > longest)))


def break_off_a_run(frame: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    longest = random.uniform(0.2, 0.98) * STEPS[-1]
    return frame.filter(~(some_arm(random) & (pl.col("seed") == 0) & (pl.col("step") > longest)))


CONVERSIONS: tuple[Callable[[pl.Expr], pl.Expr], ...] = (
    lambda loss: loss.exp(),
    lambda loss: loss / math.log(2),
    lambda loss: loss * math.log(2),
    lambda loss: (-loss).exp(),
    lambda loss: loss * 1000,
    lambda loss: -loss,
    lambda loss: loss / (math.log(2) * 4.2),
)
"""Perplexity, bits, nats of what was bits, accuracy, thousandths, a log likelihood, bits a byte."""


def rescale(frame: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """Log the values of an arm in another unit without a word."""
    convert = CONVERSIONS[random.integers(len(CONVERSIONS))]
    return frame.with_columns(
        pl.when(some_arm(random)).then(convert(pl.col("loss"))).otherwise("loss").alias("loss")
    )


def relabel_unit(frame: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """Say another unit of an arm than its values have."""
    unit = ["bits", "perplexity", "bits_per_byte", "accuracy", "higher_is_better"][random.integers(5)]
    return frame.with_columns(pl.when(some_arm(random)).then(pl.lit(unit)).alias("unit"))


def shuffle_rows(frame: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    return frame.sample(fraction=1.0, shuffle=True, seed=int(random.integers(2**31)))


def duplicate_a_stretch(frame: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """Repeat steps, as a resumed run logs them: with slightly other losses."""
    start = int(random.integers(STEPS.size - 1))
    again = frame.filter(
        some_arm(random), pl.col("step").is_between(int(STEPS[start]), int(STEPS[start]) + 400)
    )
    return pl.concat([frame, again.with_columns(pl.col("loss") + 0.02)])


def rename_a_column(frame: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    name = frame.columns[random.integers(len(frame.columns))]
    return frame.rename({name: f"{name}_x"})


MUTATIONS = (
    drop_seeds, shift_seeds, cut_in_the_middle, break_off_an_arm, break_off_a_run, rescale, relabel_unit,
    shuffle_rows, duplicate_a_stretch, rename_a_column,
)  # fmt: skip


def directions(frame: pl.DataFrame) -> set[Decision]:
    """Directions of the verdict and of its scales; empty if the log is refused."""
    try:
        comparison = compare_curves(frame, control="a")
    except UserError:
        return set()
    decisions = {item.decision for item in (*comparison.ladder, *comparison.rungs)}
    return decisions.intersection(DIRECTIONS)


def check(seed: int) -> None:
    random = np.random.default_rng(seed)
    story, evidence = list(STORIES)[random.integers(len(STORIES))], EVIDENCE[random.integers(3)]
    whole = honest_log(story, evidence, random)
    # Without evidence of decay the whole log gets no direction; with it, the direction of its end.
    known = directions(whole.with_columns(decayed=pl.col("step") == STEPS[-1]))
    if story == "no different":
        known = set()
    # Other seeds of equal variants differ by chance, at the rate that the acceptance table measures.
    choices = [m for m in MUTATIONS if story != "no different" or m not in (drop_seeds, shift_seeds)]
    chosen = random.choice(len(choices), size=random.integers(1, 4), replace=False)
    mutated = whole
    for mutation in (choices[i] for i in chosen):
        if {"variant", "step", "loss", "seed"} <= {*mutated.columns}:
            mutated = mutation(mutated, random)
    names = ", ".join(choices[i].__name__ for i in chosen)
    found = directions(mutated)
    assert found <= known, f"{seed}: {story}, {evidence} shown; {names}: {found}"


@pytest.mark.parametrize("part", range(6))
def test_a_mutated_log_gets_no_new_direction(part):
    for seed in range(part * 10, part * 10 + 10):
        check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_two_thousand_mutated_logs_get_no_new_direction(part):
    for seed in range(1000 + part * 100, 1000 + part * 100 + 100):
        check(seed)


@pytest.mark.parametrize("evidence", EVIDENCE[:2])
@pytest.mark.parametrize(("story", "decision"), [("better", Decision.B_BETTER), ("worse", Decision.A_BETTER)])
def test_the_whole_log_has_its_direction(story, decision, evidence):
    """Else the property would hold of a comparison that never says anything."""
    assert directions(honest_log(story, evidence, np.random.default_rng(0))) == {decision}


def test_the_order_of_rows_changes_nothing():
    random = np.random.default_rng(1)
    whole = honest_log("better", "decayed", random)
    one, other = compare_curves(whole, control="a"), compare_curves(shuffle_rows(whole, random), control="a")
    assert one.ladder == other.ladder
    assert one.rungs == other.rungs
