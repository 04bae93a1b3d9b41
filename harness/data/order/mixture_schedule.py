"""Mixes of a run: the source weights from each step on, and the examples that two runs share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.config.schema.data import DataConfig, Order
from harness.config.schema.run import ScaleConfig
from harness.core.errors import UserError, did_you_mean
from harness.data.order.interleave import PERIOD, Stage, counts_per_period, counts_until

MAX_WEIGHT = 1e100
"""Largest weight; sums of larger ones could overflow."""


@dataclass(frozen=True)
class MixSchedule:
    """Mixes of a data config. Equal schedules mix the same sources in the same way."""

    starts: tuple[float, ...]
    """Share of the run at which each mix starts; the first is 0."""
    counts: tuple[tuple[int, ...], ...]
    """Number of examples of each source (sorted by name) in a period of each mix."""
    sequences: int
    """Number of examples of the whole run; 0 for a single mix."""

    def stages(self, batch: int) -> tuple[Stage, ...]:
        """Return the stages, each starting with a step. Raises UserError for a mix shorter than a step."""
        steps = self.sequences // batch
        firsts = [round(start * steps) for start in self.starts]
        for i, start in enumerate(self.starts[1:]):
            before, first, after = [*firsts, steps][i : i + 3]
            if not before < first < after:
                raise UserError(
                    f"data.stages[{i}].start={start} is step {first} of {steps}, so that a mix beside it "
                    "would last no step. Move it, or give the run more tokens."
                )
        return tuple(Stage(first * batch, counts) for first, counts in zip(firsts, self.counts, strict=True))


@dataclass(frozen=True)
class MixFacts:
    """Mixes of a run of known length."""

    draws: dict[str, int]
    """Number of examples that the run takes from each source."""
    mixes: list[tuple[int, dict[str, int]]]
    """First step of each mix, and its examples of each source per 4096."""


@dataclass(frozen=True)
class SharedExamples:
    """Examples that two runs of one data seed share; one that is read twice counts twice."""

    examples: int
    """Number of examples of each run."""
    in_both: int
    """Number of examples of a run that the other run reads too, at any step."""
    same_step: int
    """Number of examples of a run that the other run reads at the same step."""


@dataclass(frozen=True)
class _Weight:
    key: str
    value: float

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


def mix_schedule(config: DataConfig) -> MixSchedule:
    """Return the schedule of a config that `check_mixes` accepted."""
    mixes = [[weight.value for weight in mix.values()] for mix in _mixes(config)]
    return MixSchedule(
        starts=(0.0, *(stage.start for stage in config.stages)),
        counts=tuple(tuple(counts_per_period(mix)) for mix in mixes),
        sequences=(config.horizon or 0) // config.sequence_length if config.stages else 0,
    )


def trained_sources(config: DataConfig) -> frozenset[str]:
    """Return the sources with a weight in any mix; the others are only evaluated."""
    return frozenset(name for mix in _mixes(config) for name, weight in mix.items() if weight.value)


def draws_by_horizon(config: DataConfig, batch: int) -> list[int]:
    """Return how many examples of each source a run of data.horizon tokens reads, by name."""
    steps = (config.horizon or 0) // (batch * config.sequence_length)
    stages = mix_schedule(config).stages(batch)
    return counts_until(stages, np.array([steps * batch]))[0].tolist()


def check_mixes(config: DataConfig) -> None:
    """Raise UserError for a mix or a stage that is invalid at any length of a run."""
    _check_stages(config)
    for number, mix in enumerate(_mixes(config)):
        _check_weights(mix, f"data.stages[{number - 1}].weights" if number else "data.sources")


def describe_mix(config: DataConfig, scale: ScaleConfig) -> MixFacts:
    """Return what a run of this length reads of each source. Raises UserError if that is nothing."""
    if (user := _horizon_user(config)) and config.horizon != scale.tokens:
        raise UserError(
            f"data.horizon={config.horizon} is not scale.tokens={scale.tokens}, but {user} refers to it. Set "
            "data.horizon='${scale.tokens}'."
        )
    stages = mix_schedule(config).stages(scale.batch)
    examples = _num_steps(config, scale) * scale.batch
    ends = counts_until(stages, np.array([*(stage.first for stage in stages), examples]))
    for mix, counts in zip(_mixes(config), np.diff(ends, axis=0), strict=True):
        for weight, count in zip(mix.values(), counts, strict=True):
            if weight.value and not count:
                raise UserError(
                    f"{weight} is less than one of the {counts.sum()} sequences of this mix. Raise it, "
                    "give 0, or give the run more tokens."
                )
    names = sorted(config.sources)
    return MixFacts(
        draws=dict(zip(names, ends[-1].tolist(), strict=True)),
        mixes=[(stage.first // scale.batch, dict(zip(names, stage.counts, strict=True))) for stage in stages],
    )


def count_shared_examples(config: DataConfig, other_config: DataConfig, scale: ScaleConfig) -> SharedExamples:
    """Count the examples that two runs of one scale and data seed share, from their configs alone. Where a
    source has the same order in both, the run that takes fewer examples of it takes those that the other
    takes first, and the examples of a step are a range of that order. A curriculum sorts the examples that
    the random order has first, so it shares these, at steps that only the lengths of documents tell: none of
    them is counted. With blocks, other orders share what nobody can tell beforehand: nothing is counted."""
    steps = _num_steps(config, scale)
    if steps != _num_steps(other_config, scale):
        return SharedExamples(steps * scale.batch, 0, 0)
    ends_N = scale.batch * np.arange(steps + 1)
    common = _common_sources(config, other_config)
    a_NS, b_NS = (_counts_by_source(c, common, scale.batch, ends_N) for c in (config, other_config))
    overlap = np.minimum(a_NS[1:], b_NS[1:]) - np.maximum(a_NS[:-1], b_NS[:-1])
    has_same_order_S = np.full(len(common), config.order is other_config.order)
    if config.order is Order.length:
        has_same_order_S &= a_NS[-1] == b_NS[-1]
    return SharedExamples(
        examples=steps * scale.batch,
        in_both=int(np.minimum(a_NS[-1], b_NS[-1]).sum()),
        same_step=int(np.maximum(overlap, 0).sum(axis=0)[has_same_order_S].sum()),
    )


def _counts_by_source(config: DataConfig, names: list[str], batch: int, n_N: np.ndarray) -> np.ndarray:
    columns = [sorted(config.sources).index(name) for name in names]
    return counts_until(mix_schedule(config).stages(batch), n_N)[:, columns]


def _common_sources(config: DataConfig, other_config: DataConfig) -> list[str]:
    """Return the sources of which both runs read the same examples, those of the shorter run first."""
    examples, other_examples = map(_examples_key, (config, other_config))
    if examples != other_examples:
        return []
    names = sorted(config.sources.keys() & other_config.sources.keys())
    pairs = {name: (config.sources[name], other_config.sources[name]) for name in names}
    return [name for name, (a, b) in pairs.items() if (a.path, a.column) == (b.path, b.column)]


def _examples_key(config: DataConfig) -> tuple[Any, ...]:
    """Return what decides the examples of a source, and which of them are the first ones."""
    block = config.order_block if config.order is Order.blocks else None
    return config.tokenizer, config.sequence_length, config.holdout, config.packing, block


def _num_steps(config: DataConfig, scale: ScaleConfig) -> int:
    return scale.tokens // (scale.batch * config.sequence_length)


def _mixes(config: DataConfig) -> list[dict[str, _Weight]]:
    """Return the weights of each mix by source (sorted by name), each with its config key."""
    names = sorted(config.sources)
    mixes = [{name: _Weight(f"data.sources.{name}.weight", config.sources[name].weight) for name in names}]
    for i, stage in enumerate(config.stages):
        weights = {name: _Weight(f"data.stages[{i}].weights.{name}", w) for name, w in stage.weights.items()}
        mixes.append(mixes[-1] | weights)
    return mixes


def _check_stages(config: DataConfig) -> None:
    before = 0.0
    for i, stage in enumerate(config.stages):
        key = f"data.stages[{i}]"
        if not 0 < stage.start < 1:
            raise UserError(
                f"{key}.start={stage.start} is not between 0 and 1. Give the share of the run after which "
                "the stage starts."
            )
        if not stage.start > before:
            raise UserError(
                f"{key}.start={stage.start} is not after {before}, the start of the stage before. Put "
                "the stages in order."
            )
        for name in stage.weights:
            if name not in config.sources:
                raise UserError(f"{key}.weights.{name}: no such source; {did_you_mean(name, config.sources)}")
        before = stage.start
    if (user := _horizon_user(config)) and config.horizon is None:
        raise UserError(f"data.horizon=null, but {user} needs it. Set data.horizon='${{scale.tokens}}'.")


def _horizon_user(config: DataConfig) -> str:
    """Return the key that refers to data.horizon; empty if none does."""
    order = "data.order=length" if config.order is Order.length else ""
    return "data.stages" if config.stages else order


def _check_weights(mix: dict[str, _Weight], where: str) -> None:
    for weight in mix.values():
        if not 0 <= weight.value <= MAX_WEIGHT:
            raise UserError(
                f"{weight} is not a weight. Give a number above 0, or 0 for a source that is only evaluated."
            )
    if not any(weight.value for weight in mix.values()):
        raise UserError(f"{where}: every weight is 0, so the run would read nothing. Give a weight above 0.")
    counts = counts_per_period([weight.value for weight in mix.values()])
    for weight, count in zip(mix.values(), counts, strict=True):
        if weight.value and not count:
            raise UserError(
                f"{weight} is less than 1 in {PERIOD} examples, so it would never be read. Raise it, "
                "or give 0 for a source that is only evaluated."
            )
