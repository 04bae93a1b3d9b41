"""Tuning of learning rates before a sweep: an equal bracket for each variant, in a sweep under `tune/`.

It trains at the smallest scale, on a seed that the test does not use. The result is written once, hashed,
and enters the sweep as a frozen input; the maximal-update rule (`model.base_width`) transfers it to other
widths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from harness.compare.inputs.lr_tuning import read_tuning
from harness.config.schema.decision import GateConfig, Stopping, TuneConfig, TuneTarget
from harness.config.schema.run import Config, ProfileConfig
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.launcher.run_directories import Note
from harness.launcher.runs import Run
from harness.records.paths import SweepDir
from harness.records.sweep import ledger

Launch = Callable[[Sequence[Config]], None]
"""Trains a sweep. Raises UserError with a run that has no outcome."""


def tune_learning_rates(
    sweep: SweepDir, runs: Sequence[Run], launch: Launch, note: Note
) -> tuple[list[Config], dict[str, Any]]:
    """Return the configs with the tuned learning rate of their variant, and the tuning result by variant.
    Without `tune=lr` the configs are unchanged and there is no result. Raises UserError for a tuning seed
    that the test uses, or a frozen result that was changed by hand."""
    configs = [run.config for run in runs]
    if configs[0].tune.name is TuneTarget.none:
        return configs, {}
    _check_tuning(configs)
    _check_decay(runs)
    _check_transfer(runs)
    smallest = _smallest_scale(configs)
    _tune_missing(sweep, smallest, launch, note)
    results = _read_results(sweep.tune, note)
    width = next(_width(run) for run in runs if run.config is smallest[0])
    return [_with_result(config, results[config.variant.name], width) for config in configs], results


def _check_tuning(configs: Sequence[Config]) -> None:
    settings = configs[0].tune
    seeds = sorted({config.seed for config in configs} | {config.data_seed for config in configs})
    if settings.seed in seeds:
        raise UserError(
            f"tune.seed={settings.seed}: the sweep itself trains on this seed, where a rate picked on it "
            f"flatters its variant. Choose one outside {seeds}."
        )


def _check_decay(runs: Sequence[Run]) -> None:
    for run in runs:
        if not run.facts.ends_decayed:
            raise UserError(
                f"tune=lr: schedule.name={run.config.schedule.name} without a cooldown never decays, and "
                "losses before the decay are not compared. Choose schedule=wsd or schedule=cosine."
            )


def _check_transfer(runs: Sequence[Run]) -> None:
    scales = {run.config.scale.name for run in runs}
    for run in runs:
        if not run.facts.is_known and len(scales) > 1:
            raise UserError(
                f"tune=lr: no rule carries a rate of model.kind={run.config.model.kind} from scale to scale."
                " Sweep one scale, or set each rate at its scale."
            )


def _width(run: Run) -> int | None:
    """Return the width that a tuned rate belongs to; None if the model has none."""
    return run.facts.shape["width"] if run.facts.is_known else None


def _smallest_scale(configs: Sequence[Config]) -> list[Config]:
    """Return one config a variant at the smallest scale. Raises UserError if it lacks a variant."""
    scale = min(configs, key=lambda config: config.scale.parameters).scale.name
    by_variant: dict[str, Config] = {}
    for config in configs:
        if config.scale.name == scale:
            by_variant.setdefault(config.variant.name, config)
    if absent := sorted({config.variant.name for config in configs} - by_variant.keys()):
        raise UserError(
            f"tune=lr: scale {scale}, the smallest, has no {', '.join(absent)}, but every variant is tuned "
            "there. Start the runs of other scales with a command of their own."
        )
    return [*by_variant.values()]


def _tune_missing(sweep: SweepDir, smallest: Sequence[Config], launch: Launch, note: Note) -> None:
    """Tune the variants that have no frozen result yet, and freeze theirs."""
    results = _read_results(sweep.tune, note)
    missing = [config for config in smallest if config.variant.name not in results]
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
        name, optimum = config.variant.name, optima[config.variant.name]
        results[name] = dataclasses.asdict(optimum) | {"seed": config.tune.seed, "scale": config.scale.name}
        edge = ", at the edge of the bracket: move optimizer.learning_rate" if optimum.edge else ""
        note(f"  {name}: learning rate {optimum.learning_rate:.3g} of {optimum.points} points{edge}")
    content = {"variants": results, "hash": hash_json(results)}
    atomic_files.write_json(sweep.tune.learning_rates, content)
    ledger.append(sweep.tune, "tuned", content)


def _bracket(config: Config) -> list[Config]:
    """Return the runs that tune one variant. A rate stands for a scale: all its variants form a block."""
    start, factor, middle = config.optimizer.learning_rate, config.tune.factor, (config.tune.points - 1) / 2
    rates = [start * factor ** (i - middle) for i in range(config.tune.points)]
    return [_with_rate(config, float(f"{rate:.4g}")) for rate in rates]


def _with_rate(config: Config, rate: float) -> Config:
    return dataclasses.replace(
        config,
        experiment_name=f"{config.experiment_name}/tune",
        scale=dataclasses.replace(config.scale, name=f"lr{rate:g}"),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=rate),
        schedule=dataclasses.replace(config.schedule, branches=[]),
        rule=dataclasses.replace(config.rule, stopping=Stopping.none, positive_control=None),
        gate=GateConfig(),
        tune=TuneConfig(),
        profile=ProfileConfig(),
        seed=config.tune.seed,
        data_seed=config.tune.seed,
    )


def _read_results(sweep: SweepDir, note: Note) -> dict[str, Any]:
    """Return the frozen results by variant. A file that no longer matches its hash is written again as the
    ledger holds it. Raises UserError if the ledger does not hold it."""
    entries, content = ledger.read_valid(sweep, "tuned"), atomic_files.read_json(sweep.learning_rates)
    if not entries:
        return {}
    frozen = entries[-1]["content"]
    if isinstance(content, dict) and hash_json(content.get("variants")) == frozen["hash"]:
        return content["variants"]
    if "variants" not in frozen:  # an earlier version kept the hash alone
        raise UserError(
            f"{sweep.learning_rates} was changed or lost after it was hashed. Restore it, or move "
            f"{sweep.path} away and tune again under another experiment_name."
        )
    note(f"{sweep.learning_rates} was changed or lost; it is written again as the ledger holds it")
    atomic_files.write_json(sweep.learning_rates, frozen)
    return frozen["variants"]


def _with_result(config: Config, result: dict[str, Any], width: int | None) -> Config:
    model = config.model
    if model.base_width is None:
        model = dataclasses.replace(model, base_width=width)
    optimizer = dataclasses.replace(config.optimizer, learning_rate=result["learning_rate"])
    return dataclasses.replace(config, model=model, optimizer=optimizer)
