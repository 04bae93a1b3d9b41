"""An equal bracket of learning rates for each variant, before the sweep: a sweep of its own under `tune/`.

It trains at the smallest scale, on a seed that the test does not use. What it finds is written
down once, hashed, and enters the sweep as a frozen input; other widths take it over by the
maximal-update rule (`model.base_width`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from harness.compare.inputs.lr_tuning import Optimum, read_tuning
from harness.config.schema.decision import GateConfig, RuleConfig, Stopping, TuneConfig, TuneTarget
from harness.config.schema.run import Config, ProfileConfig
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.launcher.runs import Run
from harness.records.paths import SweepDir
from harness.records.sweep import ledger

Launch = Callable[[Sequence[Config]], None]
"""Trains a sweep. Raises UserError naming a run that has no outcome."""
Note = Callable[[str], None]


def tune_learning_rates(
    sweep: SweepDir, runs: Sequence[Run], launch: Launch, note: Note
) -> tuple[list[Config], dict[str, Any]]:
    """Return the configs with the tuned learning rate of their variant, and the tuning result by variant.

    Without `tune=lr` the configs are unchanged and there is no result. Raises UserError for a tuning seed
    that the test uses, or a frozen result that was changed by hand.
    """
    configs = [run.config for run in runs]
    if configs[0].tune.name is TuneTarget.none:
        return configs, {}
    _check(configs)
    smallest = _smallest(configs)
    _train_missing(sweep, smallest, launch, note)
    found = _frozen(sweep.tune)
    width = next(run.facts.shape["width"] for run in runs if run.config is smallest[0])
    return [_applied(config, found[config.variant.name], width) for config in configs], found


def _check(configs: Sequence[Config]) -> None:
    settings = configs[0].tune
    used = sorted({config.seed for config in configs} | {config.data_seed for config in configs})
    if settings.seed in used:
        raise UserError(
            f"tune.seed={settings.seed}: the sweep itself trains on it; choose one outside {used}, since a "
            "rate that was picked on a seed flatters its variant there"
        )
    schedule = configs[0].schedule
    if schedule.name == "constant" or (schedule.name == "wsd" and not schedule.cooldown):
        raise UserError(
            f"tune=lr: schedule.name={schedule.name} without a cooldown never decays, and hot losses are not "
            "compared; choose schedule=wsd or schedule=cosine"
        )
    if settings.points < 3 or settings.factor <= 1:
        raise UserError(
            f"tune.points={settings.points}, tune.factor={settings.factor:g}: a bracket has three or more "
            "points, a factor above 1 apart"
        )


def _smallest(configs: Sequence[Config]) -> list[Config]:
    """One config a variant, at the smallest scale. Raises UserError where one is not trained there."""
    least = min(configs, key=lambda config: config.scale.parameters).scale.name
    here = [config for config in configs if config.scale.name == least]
    if absent := sorted({c.variant.name for c in configs} - {c.variant.name for c in here}):
        raise UserError(
            f"tune=lr: scale {least}, the smallest, has no {', '.join(absent)}; every variant is tuned "
            "there, so give the runs of other scales a command of their own"
        )
    variants = dict.fromkeys(c.variant.name for c in here)
    return [next(c for c in here if c.variant.name == name) for name in variants]


def _train_missing(sweep: SweepDir, smallest: Sequence[Config], launch: Launch, note: Note) -> None:
    """Tune the variants that have no frozen result yet, and freeze theirs."""
    frozen = _frozen(sweep.tune)
    missing = [config for config in smallest if config.variant.name not in frozen]
    if not missing:
        return
    settings = missing[0].tune
    note(
        f"tune=lr: {settings.points} learning rates for each of {', '.join(c.variant.name for c in missing)} "
        f"at scale {missing[0].scale.name}, seed {settings.seed}"
    )
    launch([point for config in missing for point in _bracket(config)])
    optima = read_tuning(sweep.tune, tuple(missing[0].rule.domains))
    for config in missing:
        frozen[config.variant.name] = _record(optima[config.variant.name], config)
        note(f"  {config.variant.name}: {_said(optima[config.variant.name])}")
    _freeze(sweep.tune, frozen)


def _bracket(config: Config) -> list[Config]:
    """The runs that tune one variant. A learning rate takes the place of a scale, so that the variants
    of one point are a block."""
    middle = (config.tune.points - 1) / 2
    rates = [
        config.optimizer.learning_rate * config.tune.factor ** (i - middle) for i in range(config.tune.points)
    ]
    return [_point(config, float(f"{rate:.4g}")) for rate in rates]


def _point(config: Config, rate: float) -> Config:
    return dataclasses.replace(
        config,
        experiment_name=f"{config.experiment_name}/tune",
        scale=dataclasses.replace(config.scale, name=f"lr{rate:g}"),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=rate),
        schedule=dataclasses.replace(config.schedule, branches=[]),
        rule=_without_stopping(config.rule),
        gate=GateConfig(),
        tune=TuneConfig(),
        profile=ProfileConfig(),
        seed=config.tune.seed,
        data_seed=config.tune.seed,
    )


def _without_stopping(rule: RuleConfig) -> RuleConfig:
    return dataclasses.replace(rule, stopping=Stopping.none, positive_control=None)


def _record(optimum: Optimum, config: Config) -> dict[str, Any]:
    return dataclasses.asdict(optimum) | {"seed": config.tune.seed, "scale": config.scale.name}


def _said(optimum: Optimum) -> str:
    edge = ", at the edge of the bracket: move optimizer.learning_rate" if optimum.edge else ""
    return f"learning rate {optimum.learning_rate:.3g} of {optimum.points} points{edge}"


def _freeze(sweep: SweepDir, found: dict[str, Any]) -> None:
    content = {"variants": found, "hash": hash_json(found)}
    atomic_files.write_json(sweep.tuned, content)
    ledger.append(sweep, "tuned", {"hash": content["hash"]})


def _frozen(sweep: SweepDir) -> dict[str, Any]:
    """What was found before, by variant. Raises UserError where it no longer fits its hash."""
    entries, content = ledger.read_valid(sweep, "tuned"), atomic_files.read_json(sweep.tuned)
    if not entries:
        return {}
    if not isinstance(content, dict) or hash_json(content.get("variants")) != entries[-1]["content"]["hash"]:
        raise UserError(
            f"{sweep.tuned}: changed or lost after it was hashed; restore it, or move {sweep.path} away "
            "and tune again under another experiment_name"
        )
    return content["variants"]


def _applied(config: Config, found: dict[str, Any], width: int) -> Config:
    model = config.model
    if model.base_width is None:
        model = dataclasses.replace(model, base_width=width)
    optimizer = dataclasses.replace(config.optimizer, learning_rate=found["learning_rate"])
    return dataclasses.replace(config, model=model, optimizer=optimizer)
