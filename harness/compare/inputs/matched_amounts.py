"""Resource of which the runs of a comparison got equal amounts, if that is not tokens."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from harness.config.schema.decision import Axis
from harness.core.errors import UserError, did_you_mean

AMOUNTS = {Axis.flops: "FLOPs", Axis.seconds: "device-seconds"}
VOUCHED_SECONDS = (
    "you vouch (--match seconds) that all runs had equal device-seconds: the logs have no column `seconds`"
)


@dataclass(frozen=True)
class MatchedAmounts:
    """Resource of which all runs of a log got equal amounts, and what is said of it."""

    axis: Axis = Axis.tokens
    notes: tuple[str, ...] = ()


def match_note(axis: Axis) -> str:
    """Return the sentence of a comparison at equal FLOPs or device-seconds; empty at equal tokens."""
    if axis is Axis.tokens:
        return ""
    return f"the variants are compared at equal {AMOUNTS[axis]} (match={axis.value}), not at equal tokens"


def read_match(match: str | None, frame: pl.DataFrame) -> MatchedAmounts:
    """Return what the logs are to be compared at equal amounts of. frame: their rows, with a column for every
    known name. Raises UserError for an unknown word, and for FLOPs that no column tells."""
    if match is None:
        return MatchedAmounts()
    axes = {axis.value: axis for axis in Axis}
    if match not in axes:
        raise UserError(f"match={match}: no such resource; {did_you_mean(match, axes)}")
    axis = axes[match]
    if axis is Axis.flops and frame["flops"].is_null().all() and frame["parameters"].is_null().all():
        raise UserError(
            "match=flops: the logs have no column `flops` or `parameters`. Map one, such as --map flops=NAME."
        )
    is_vouched = axis is Axis.seconds and frame["seconds"].is_null().all()
    return MatchedAmounts(axis, (VOUCHED_SECONDS,) if is_vouched else ())
