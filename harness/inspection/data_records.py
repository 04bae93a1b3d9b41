"""Records of the data that `harness verify --data` compares: those of runs, or none for overrides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.config.compose import sweep_configs
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.inspection.verify_data import DataRecord
from harness.records.paths import RunDir
from harness.records.run.config_file import read_config
from harness.records.run.find_checkpoint import find_run
from harness.records.run.provenance import Facts, read_provenance
from harness.records.sweep.find_sweep import find_sweep


def data_records(words: Sequence[str]) -> list[DataRecord]:
    """Return the records of SWEEP, RUN or overrides, each choice of data once. Raises UserError."""
    if not words:
        raise UserError(
            "harness verify --data: name a sweep, a run, or overrides such as experiment=attention"
        )
    if len(words) > 1 or "=" in words[0]:
        return _distinct(DataRecord(config) for config in sweep_configs(words))
    path = Path(words[0])
    if path.is_dir() and not RunDir(path).run.exists():
        return _distinct(map(_record_of, find_sweep(path).runs()))
    return [_record_of(find_run(words[0]).run)]


def _record_of(run: RunDir) -> DataRecord:
    provenance = read_provenance(run)
    digests = _digests(provenance.facts) if provenance else {}
    return DataRecord(read_config(run.config), str(run.path), digests)


def _digests(facts: Facts) -> dict[str, dict[str, str]]:
    return {name: source.digests for name, source in facts.sources.items()}


def _distinct(records: Iterable[DataRecord]) -> list[DataRecord]:
    """Return the first record of each choice of data and of each version of it."""
    by_data: dict[str, DataRecord] = {}
    for record in records:
        data = [record.config.data, record.config.evaluation.sets, record.digests]
        by_data.setdefault(hash_json(data), record)
    return [*by_data.values()]
