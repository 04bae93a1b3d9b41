"""Check that the runs that a command adds to a sweep read the data that its earlier runs have read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.config.pair_check import describe_differences
from harness.config.run_identity import config_difference
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.core.hashing import is_covered_by
from harness.launcher.run_directories import would_continue
from harness.launcher.runs import Run
from harness.records.paths import RunDir, SweepDir
from harness.records.run.config_file import read_config
from harness.records.run.provenance import Facts, Provenance, read_provenance
from harness.records.run.run_lock import worker_of
from harness.records.run.status import read_status

DATA_KEYS = ("data", "evaluation.tokens", "evaluation.sets", "evaluation.decontaminate")
SHOWN_FILES = 3
"""Number of changed files that a message names."""


def check_same_data(sweep: SweepDir, runs: Sequence[Run]) -> None:
    """Raise UserError if a run that is left to train would read other data than a run of the sweep that keeps
    its steps: the files have changed, or a variant of the same block has other data and does not declare it.
    Writes nothing."""
    by_data = {_fingerprints(run.facts): run for run in runs if not run.ended}
    if not by_data:
        return
    by_name = {run.name: run for run in runs}
    for directory in sweep.runs():
        stored = read_provenance(directory)
        if stored is None or _fingerprints(stored.facts) in by_data:
            continue
        if _keeps_steps(directory, stored, by_name):
            _check_run(sweep, directory, stored, [run for run in runs if not run.ended])


def _fingerprints(facts: Facts) -> tuple[str, str]:
    return facts.data_fingerprint, facts.eval_fingerprint


def _keeps_steps(directory: RunDir, stored: Provenance, by_name: Mapping[str, Run]) -> bool:
    """Return whether a run has steps that this command would not compute again."""
    status = read_status(directory)
    if status.state.ended or worker_of(directory):
        return True
    run = by_name.get("/".join(directory.path.parts[-3:]))
    return bool(status.step) and run is not None and would_continue(run, stored)


def _check_run(sweep: SweepDir, directory: RunDir, stored: Provenance, runs: Sequence[Run]) -> None:
    try:
        config = read_config(directory.config)
    except UserError:
        return  # damaged: it is written again, and the comparison reports it
    for run in runs:
        if difference := _difference(config, stored, run):
            raise UserError(
                f"{sweep.path}: {difference} since {'/'.join(directory.path.parts[-3:])} was trained, so "
                f"{run.name} would read other data. Restore that, or choose another experiment_name=..."
            )


def _difference(config: Config, stored: Provenance, run: Run) -> str:
    """Return what differs between the data of a stored run and of one that has to read the same."""
    different_keys = {
        key: values
        for key, values in config_difference(config, run.config).items()
        if is_covered_by(key, [*DATA_KEYS])
    }
    if not different_keys:
        return _changed_files(stored.facts, run)
    in_block = (stored.scale, stored.seed) == (run.config.scale.name, run.config.seed)
    is_declared = is_covered_by("data", [*stored.touches, *run.config.variant.touches])
    return "" if is_declared or not in_block else f"{describe_differences(different_keys)} changed"


def _changed_files(before: Facts, run: Run) -> str:
    """Return the files that have changed; of a run of an earlier version, all that may have."""
    data, now = run.config.data, run.facts
    keys = {name: f"data.sources.{name}.path={source.path}" for name, source in data.sources.items()}
    if not before.sources:
        files = ", ".join([*keys.values(), f"data.tokenizer={data.tokenizer}"])
        return f"{files} or how this version reads it changed"
    changes = [f"data.tokenizer={data.tokenizer} changed"] if before.tokenizer != now.tokenizer else []
    for name, source in now.sources.items():
        if (earlier := before.sources.get(name)) and earlier.content != source.content:
            files = _changed_names(earlier.digests, source.digests)
            listing = ", ".join(files[:SHOWN_FILES]) + (", ..." if len(files) > SHOWN_FILES else "")
            changes.append(f"{keys[name]} changed{f' ({listing})' if files else ''}")
    changes += [
        f"evaluation.sets.{name}.path={run.config.evaluation.sets[name].path} changed"
        for name, facts in now.sets.items()
        if name in before.sets and before.sets[name].content != facts.content
    ]
    return " and ".join(changes) or f"{', '.join(keys.values())} changed"


def _changed_names(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the files that are new, gone or different, each with the word for that."""
    words = {name: "different" for name in before.keys() & now.keys() if before[name] != now[name]}
    words |= dict.fromkeys(now.keys() - before.keys(), "new") | dict.fromkeys(
        before.keys() - now.keys(), "gone"
    )
    return [f"{name} {words[name]}" for name in sorted(words)]
