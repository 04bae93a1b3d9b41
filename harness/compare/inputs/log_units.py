"""Units of logged values: conversion to a loss, and arms whose values cannot be in one unit."""

from __future__ import annotations

import itertools
import math
from enum import Enum

import polars as pl

from harness.core.errors import UserError, did_you_mean


class LogUnit(Enum):
    """Unit of a logged value."""

    nats = "nats"
    bits = "bits"
    perplexity = "perplexity"
    bits_per_byte = "bits_per_byte"
    accuracy = "accuracy"
    """Share or percentage of right answers; higher is better."""
    higher_is_better = "higher_is_better"
    """Any other score that rises as a model improves."""

    @property
    def loss_name(self) -> str:
        """Name of the loss that its values become."""
        return {
            LogUnit.bits_per_byte: "bits a byte",
            LogUnit.accuracy: "accuracy, negated",
            LogUnit.higher_is_better: "score, negated",
        }.get(self, "nats a token")

    def to_loss(self, values: pl.Expr) -> pl.Expr:
        """Return the loss: nats a token, bits a byte, or the negated score."""
        match self:
            case LogUnit.bits:
                return values * math.log(2)
            case LogUnit.perplexity:
                return values.log()
            case LogUnit.accuracy | LogUnit.higher_is_better:
                return -values
        return values


MAX_FIRST_NATS = 30.0
"""Loss at the start of a run above which it is no loss in nats: ln V is below 14 for every vocabulary."""
NATS_PER_BIT = math.log(2)
FACTOR_TOLERANCE = 0.04
"""Relative distance from 1 / ln 2 within which the ratio of two arms is that of bits to nats."""
MAX_FACTOR = 2.5
"""Ratio of the losses of two arms at one step above which they have no unit in common."""
MIN_EVALUATIONS, RISING_SHARE = 3, 0.6
"""Evaluations of a run, and share of its steps upwards, from which on values of at most 1 are no loss."""
RISING_UNITS = (LogUnit.accuracy.value, LogUnit.higher_is_better.value)
WAY_OUT = "Tell the right unit with --unit or a column `unit`."


def parse_unit(name: str, option: str) -> LogUnit:
    """Return the unit of this name. Raises UserError, with the option or column, for an unknown one."""
    valid = {unit.value: unit for unit in LogUnit}
    if name not in valid:
        raise UserError(f"{option}={name}: no such unit; {did_you_mean(name, valid)}")
    return valid[name]


def to_losses(frame: pl.DataFrame, unit: str | None) -> pl.DataFrame:
    """Return the table with its values as losses. Rows without a `unit` have the option's; where nobody tells
    one, they are taken as nats a token and the column stays null. Raises UserError for an unknown unit."""
    if unit is not None:
        parse_unit(unit, "unit")
    frame = frame.with_columns(pl.col("unit").fill_null(pl.lit(unit, pl.String)))
    loss = pl.col("loss")
    for name in frame["unit"].drop_nulls().unique().to_list():
        converted = parse_unit(name, "unit").to_loss(pl.col("loss"))
        loss = pl.when(pl.col("unit") == name).then(converted).otherwise(loss)
    return frame.with_columns(loss.alias("loss"))


def unit_mismatches(frame: pl.DataFrame, control: str) -> dict[tuple[str, str], str]:
    """Return a sentence for each (scale, variant) whose values can be no loss in the control's unit.

    frame: scored rows with scale, variant, seed, step, loss and the unit that somebody told (null: nobody).
    The medians over seeds at the steps that two arms share are compared, and where a run starts and which way
    it goes. A unit that was told is not believed against the data.
    """
    unit = pl.col("unit").first().alias("unit")
    medians = frame.group_by("scale", "variant", "step").agg(pl.col("loss").median(), unit).sort("step")
    curves = medians.partition_by("scale", "variant", as_dict=True)
    problems = {}
    for (scale, variant), curve in curves.items():
        reason = _lone_problem(curve["loss"].to_list(), curve["unit"][0])
        if not reason and variant != control and (scale, control) in curves:
            reason = _pair_problem(curves[scale, control], curve, control)
        if reason:
            problems[scale, variant] = f"{variant} at {scale}: {reason}. {WAY_OUT}"
    return problems


def _lone_problem(losses: list[float], unit: str | None) -> str:
    """Return why the values of one arm can be no loss in nats or bits, or not in the unit told; empty if they
    can."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    if unit in RISING_UNITS:
        return _falling_score(finite, unit)
    if finite and finite[0] > MAX_FIRST_NATS:
        return f"its values start at {finite[0]:.4g}, as a perplexity does"
    if len(finite) < MIN_EVALUATIONS or max(finite) > 1:
        return ""
    rises = sum(b > a for a, b in itertools.pairwise(finite))
    if finite[-1] > finite[0] and rises > RISING_SHARE * (len(finite) - 1):
        score = "a log likelihood" if min(finite) < 0 else "an accuracy"
        return f"its values rise from {finite[0]:.4g} to {finite[-1]:.4g}, as {score} does"
    return ""


def _falling_score(losses: list[float], unit: str) -> str:
    """Return why values cannot be the score that somebody told, as which they were negated."""
    steps = [b - a for a, b in itertools.pairwise(losses)]
    if len(losses) < MIN_EVALUATIONS or losses[-1] <= losses[0]:
        return ""
    if sum(step > 0 for step in steps) <= RISING_SHARE * len(steps):
        return ""
    return f"its values fall from {-losses[0]:.4g} to {-losses[-1]:.4g}, which no {unit} does"


def _pair_problem(control: pl.DataFrame, treatment: pl.DataFrame, control_name: str) -> str:
    """Return why two arms have no unit in common; empty if they can."""
    joined = control.join(treatment, on="step", suffix="_b").filter(pl.col("loss") * pl.col("loss_b") != 0)
    opposite = joined.filter(pl.col("loss") * pl.col("loss_b") < 0)
    if len(opposite) > len(joined) / 2:
        return f"its values and those of {control_name} have opposite signs"
    positive = joined.filter((pl.col("loss") > 0) & (pl.col("loss_b") > 0))
    if positive.is_empty():
        return ""
    ratio = float((positive["loss_b"] / positive["loss"]).median())  # pyright: ignore[reportArgumentType]
    factor = max(ratio, 1 / ratio)
    if abs(factor * NATS_PER_BIT - 1) < FACTOR_TOLERANCE:
        return f"its values are {ratio:.3f} times those of {control_name}, the ratio of bits to nats"
    if factor > MAX_FACTOR:
        return f"its values are {ratio:.3g} times those of {control_name} at the same steps"
    return ""
