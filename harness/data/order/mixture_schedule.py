"""The mixes of a run: which weights hold from which step on, and what two runs read in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.config.schema.run import DataConfig, ScaleConfig
from harness.core.errors import UserError, did_you_mean
from harness.data.order.interleave import PERIOD, Stage, counts_per_period, counts_until

MAX_WEIGHT = 1e100
"""A weight beyond it would leave the range of numbers in a sum."""


@dataclass(frozen=True)
class MixSchedule:
    """The mixes of a data config. Two plans that are equal mix the same sources alike."""

    starts: tuple[float, ...]
    """Share of the run at which each begins; the first at 0."""
    counts: tuple[tuple[int, ...], ...]
    """Examples of each source, in the order of their names, in a period of each mix."""
    sequences: int
    """Examples of the whole run; 0 where nothing depends on it."""

    def stages(self, batch: int) -> tuple[Stage, ...]:
        """Each begins with a step. Raises UserError where a mix would last no step."""
        steps = self.sequences // batch
        firsts = [round(start * steps) for start in self.starts]
        for i, start in enumerate(self.starts[1:]):
            before, first, after = [*firsts, steps][i : i + 3]
            if not before < first < after:
                raise UserError(
                    f"data.stages[{i}].start={start} is step {first} of {steps}, and beside it a mix would "
                    "last no step: move it, or give the run more tokens"
                )
        return tuple(Stage(first * batch, counts) for first, counts in zip(firsts, self.counts, strict=True))


@dataclass(frozen=True)
class MixFacts:
    draws: dict[str, int]
    """Examples that a run takes from each source."""
    mixes: list[tuple[int, dict[str, int]]]
    """First step of each mix, and its examples of each source in 4096."""


@dataclass(frozen=True)
class SharedExamples:
    """What two runs of one data seed have in common; an example that is read twice counts twice."""

    examples: int
    """Of each run."""
    in_both: int
    """Examples of a run that the other one reads too, at whatever step."""
    same_step: int
    """Examples of a run that the other one reads at the same step."""


@dataclass(frozen=True)
class _Weight:
    key: str
    value: float

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


def mix_schedule(config: DataConfig) -> MixSchedule:
    """The mixes of a config that was checked."""
    mixes = [[weight.value for weight in mix.values()] for mix in _mixes(config)]
    return MixSchedule(
        starts=(0.0, *(stage.start for stage in config.stages)),
        counts=tuple(tuple(counts_per_period(mix)) for mix in mixes),
        sequences=(config.horizon or 0) // config.sequence_length if config.stages else 0,
    )


def trained_sources(config: DataConfig) -> frozenset[str]:
    """Sources that any mix reads; the others are evaluated alone."""
    return frozenset(name for mix in _mixes(config) for name, weight in mix.items() if weight.value)


def check_mixes(config: DataConfig) -> None:
    """Raises UserError for a mix or a stage that makes no sense at any length of a run."""
    _check_stages(config)
    for number, mix in enumerate(_mixes(config)):
        _check_weights(mix, f"data.stages[{number - 1}].weights" if number else "data.sources")


def describe_mix(config: DataConfig, scale: ScaleConfig) -> MixFacts:
    """What a run of this length reads of each source. Raises UserError where that is nothing."""
    if config.stages and config.horizon != scale.tokens:
        raise UserError(
            f"data.horizon={config.horizon} is not scale.tokens={scale.tokens}, of which data.stages are "
            "shares: write data.horizon='${scale.tokens}'"
        )
    stages = mix_schedule(config).stages(scale.batch)
    examples = _num_steps(config, scale) * scale.batch
    ends = counts_until(stages, np.array([*(stage.first for stage in stages), examples]))
    for mix, counts in zip(_mixes(config), np.diff(ends, axis=0), strict=True):
        _check_counts(mix, counts)
    names = sorted(config.sources)
    return MixFacts(
        draws=dict(zip(names, ends[-1].tolist(), strict=True)),
        mixes=[(stage.first // scale.batch, dict(zip(names, stage.counts, strict=True))) for stage in stages],
    )


def count_shared_examples(config: DataConfig, other_config: DataConfig, scale: ScaleConfig) -> SharedExamples:
    """What two runs of one scale and one data seed have in common, from their configs alone.

    The order of a source is the same in both, so of each source the run that takes fewer takes what
    the other takes first, and a step's examples are a stretch of that order.
    """
    steps = _num_steps(config, scale)
    if steps != _num_steps(other_config, scale):
        return SharedExamples(steps * scale.batch, 0, 0)
    ends_N = scale.batch * np.arange(steps + 1)
    common = _common_sources(config, other_config)
    a_NS, b_NS = (_counts_by_source(config, common, scale.batch, ends_N) for config in (config, other_config))
    overlap = np.minimum(a_NS[1:], b_NS[1:]) - np.maximum(a_NS[:-1], b_NS[:-1])
    return SharedExamples(
        examples=steps * scale.batch,
        in_both=int(np.minimum(a_NS[-1], b_NS[-1]).sum()),
        same_step=int(np.maximum(overlap, 0).sum()),
    )


def _counts_by_source(config: DataConfig, names: list[str], batch: int, n_N: np.ndarray) -> np.ndarray:
    columns = [sorted(config.sources).index(name) for name in names]
    return counts_until(mix_schedule(config).stages(batch), n_N)[:, columns]


def _common_sources(config: DataConfig, other_config: DataConfig) -> list[str]:
    """Sources of which both read the same windows in the same order."""
    if any(
        getattr(config, key) != getattr(other_config, key)
        for key in ("tokenizer", "sequence_length", "holdout")
    ):
        return []
    names = sorted(config.sources.keys() & other_config.sources.keys())
    files = [
        {name: (c.sources[name].path, c.sources[name].column) for name in names}
        for c in (config, other_config)
    ]
    return [name for name in names if files[0][name] == files[1][name]]


def _num_steps(config: DataConfig, scale: ScaleConfig) -> int:
    return scale.tokens // (scale.batch * config.sequence_length)


def _mixes(config: DataConfig) -> list[dict[str, _Weight]]:
    """Weights by source, in the order of their names, and where each is written; one entry a mix."""
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
                f"{key}.start={stage.start} is not between 0 and 1: give the share of the run after which it "
                "begins"
            )
        if not stage.start > before:
            raise UserError(
                f"{key}.start={stage.start} is not after the {before} of the stage before it: put the "
                "stages in order"
            )
        for name in stage.weights:
            if name not in config.sources:
                raise UserError(f"{key}.weights.{name}: no such source; {did_you_mean(name, config.sources)}")
        before = stage.start
    if config.stages and config.horizon is None:
        raise UserError(
            "data.horizon=null is no budget that data.stages could be shares of: write "
            "data.horizon='${scale.tokens}'"
        )


def _check_weights(mix: dict[str, _Weight], where: str) -> None:
    for weight in mix.values():
        if not 0 <= weight.value <= MAX_WEIGHT:
            raise UserError(
                f"{weight} is no weight: give a number above 0, or 0 for a source that is evaluated alone"
            )
    if not any(weight.value for weight in mix.values()):
        raise UserError(f"{where}: every weight is 0, so that nothing would be read: give one above 0")
    for weight, count in zip(
        mix.values(), counts_per_period([weight.value for weight in mix.values()]), strict=True
    ):
        if weight.value and not count:
            raise UserError(
                f"{weight} is less than 1 in {PERIOD} examples, so that it would never be read: raise it, "
                "or give 0 for a source that is evaluated alone"
            )


def _check_counts(mix: dict[str, _Weight], counts: np.ndarray) -> None:
    for weight, count in zip(mix.values(), counts, strict=True):
        if weight.value and not count:
            raise UserError(
                f"{weight} is less than one of the {counts.sum()} sequences that this mix lasts: raise it, "
                "give 0, or give the run more tokens"
            )
